// The executable: everything is in TidemarkCommands.
import TidemarkCommands

Tidemark.runMain()
