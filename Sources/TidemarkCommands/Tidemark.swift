// The command line's root: global options, the commands, and how errors become text and exit statuses.
import ArgumentParser
import Diagnostics
import Glibc
import Logging
import PostgresFormats
import SystemSupport

extension Logger.Level: @retroactive ExpressibleByArgument {}

struct GlobalOptions: ParsableArguments {
  @Option(name: .long, help: "The configuration file (default: $TIDEMARK_CONFIG or /etc/tidemark/tidemark.yaml).")
  var config: String?
  @Flag(name: .long, help: "Print one JSON document on standard output.")
  var json = false
  @Option(name: .long, help: "trace, debug, info, notice, warning, error or critical.")
  var logLevel: Logger.Level = .notice
}

/// A command whose errors are Tidemark's.
protocol TidemarkCommand: ParsableCommand {
  var global: GlobalOptions { get }
  /// Does the work and returns the exit status.
  func execute() throws(TidemarkError) -> Int32
  /// The exit status for `error`.
  func status(of error: TidemarkError) -> Int32
  /// Under which name its runs are measured and reported; `nil`: they aren't.
  var recordedName: String? { get }
}

extension TidemarkCommand {
  func status(of error: TidemarkError) -> Int32 { error.exitStatus.rawValue }

  /// Read-only commands for people say nothing about operation; `wal-fetch` ends with 1 all the time on a standby.
  var recordedName: String? { Self.configuration.commandName }

  func run() throws {
    let record = CommandRecord.current
    let status: Int32
    do throws(TidemarkError) { status = try execute() } catch {
      StandardErrorLog.write(error.operatorText + "\n")
      if global.json {
        let document = ErrorDocument(error: .init(error))
        // The error itself stands on standard error already.
        if let text = try? CommandContext.encode(document) { try CommandContext.write(text) }
      }
      if let recordedName { record.conclude(recordedName, self.status(of: error), error) }
      throw ExitCode(self.status(of: error))
    }
    if let recordedName { record.conclude(recordedName, status, nil) }
    if status != 0 { throw ExitCode(status) }
  }
}

struct ErrorDocument: Codable {
  struct Body: Codable {
    var code: String
    var summary: String
    var object: String?
    var cause: String?
    var kept: String?
    var next: String?

    init(_ error: TidemarkError) {
      code = error.code.rawValue
      summary = error.summary
      object = error.object
      cause = error.cause
      kept = error.kept
      next = error.next
    }
  }
  var error: Body
}

package enum Version {
  package static let text = "0.1.0"
}

package struct Tidemark: ParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "tidemark",
    abstract: "Backups and point-in-time recovery of PostgreSQL, sealed, in two regions.",
    version: Version.text,
    subcommands: [
      InitCommand.self, CheckCommand.self, BackupCommand.self, ListCommand.self, ShowCommand.self,
      WALPushCommand.self, WALFetchCommand.self, WALFetchAheadCommand.self, RestoreCommand.self, DrillCommand.self,
      SyncCommand.self,
      ExpireCommand.self, VerifyCommand.self, StatusCommand.self, HoldCommand.self, ReleaseCommand.self,
      NotifyCommand.self, KeysCommand.self,
    ])

  package init() {}

  /// Runs the command line. Global options may stand before the command: they are moved behind it.
  package static func runMain() {
    ProcessHardening.apply()
    Termination.installHandlers()
    let arguments = reordered(Array(CommandLine.arguments.dropFirst()))
    do {
      var command: any ParsableCommand = if let hook = hook(arguments) { hook } else { try parseAsRoot(arguments) }
      try command.run()
    } catch {
      let isUsage = !(error is ExitCode) && exitCode(for: error) != .success
      if isUsage, isFetching(arguments) {
        StandardErrorLog.write(fullMessage(for: error) + "\n")
        Glibc.exit(WALFetchCommand.otherFailure)
      }
      Tidemark.exit(withError: error)
    }
  }

  /// Whether PostgreSQL's restore_command runs this, even with a misspelt command: a status up to 125 would say that the
  /// file isn't in the archive, and end a recovery early.
  static func isFetching(_ arguments: [String]) -> Bool {
    arguments.contains("wal-fetch")
      // Only a name of WAL's counts.
      || arguments.contains { (try? WALFileName(text: $0)) != nil && !$0.contains("/") }
  }

  /// PostgreSQL's hooks in the form that everybody writes them in, put together without the parser, which takes a fifth of
  /// the start of such a process; `nil` for everything else.
  static func hook(_ arguments: [String]) -> (any TidemarkCommand)? {
    var global = GlobalOptions()
    (global.config, global.json, global.logLevel) = (nil, false, .notice)
    var rest = arguments.dropFirst()
    if rest.first == "--config" {
      global.config = rest.dropFirst().first
      rest = rest.dropFirst(2)
    }
    let words = Array(rest)
    guard global.config?.hasPrefix("-") != true, !words.contains(where: { $0.hasPrefix("-") }) else { return nil }
    switch (arguments.first, words.count) {
    case (WALPushCommand.configuration.commandName, 1):
      var command = WALPushCommand()
      (command.global, command.path) = (global, words[0])
      return command
    case (WALFetchCommand.configuration.commandName, 2):
      var command = WALFetchCommand()
      (command.global, command.name, command.destination, command.plan) = (global, words[0], words[1], nil)
      return command
    default: return nil
    }
  }

  static func reordered(_ arguments: [String]) -> [String] {
    var leading: [String] = []
    var rest = arguments[...]
    while let first = rest.first, first.hasPrefix("-") {
      // Whatever isn't global is the root's own: --help, --version, --generate-completion-script SHELL.
      let name = first.prefix { $0 != "=" }
      if !["--config", "--json", "--log-level"].contains(name) { return arguments }
      leading.append(rest.removeFirst())
      if ["--config", "--log-level"].contains(first), let value = rest.popFirst() { leading.append(value) }
    }
    guard let command = rest.popFirst() else { return arguments }
    // `keys generate` has its options behind its own name; of `drill`'s commands one has none.
    if command == "keys" || command == "drill" && ["list", "report", "run"].contains(rest.first),
      let inner = rest.popFirst()
    {
      return [command, inner] + leading + rest
    }
    return [command] + leading + rest
  }
}
