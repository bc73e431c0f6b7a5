// What is installed on a host: the files and their removal, the hardening of the units, the pages and completions, and the
// Debian package, which is really installed and removed, in a copy-on-write view of this host.
import Foundation
import Glibc
import SystemSupport
import TestSupport
import Testing

@Suite("Packaging", .serialized)
struct PackagingTests {
  /// The program without its symbols, and everything installed below a root of its own.
  private static let installed = Result { () throws -> (directory: TemporaryDirectory, binary: String, root: String) in
    let directory = try TemporaryDirectory()
    let binary = "\(directory.path)/tidemark"
    let built = directoryName(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) + "/tidemark"
    try run("strip", ["-o", binary, built])
    let root = "\(directory.path)/root"
    try run(script("install"), ["--prefix", "/usr", "--destdir", root, "--binary", binary])
    return (directory, binary, root)
  }

  private static func script(_ name: String) -> String { "\(TestTools.packageRoot)/scripts/\(name)" }

  @discardableResult
  private static func run(_ program: String, _ arguments: [String]) throws -> String {
    let outcome = try ChildProcess.run(
      program, arguments, environment: ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEB_COMPRESSION": "gzip"],
      deadline: .after(.seconds(300)))
    try #require(outcome.succeeded, "\(program) \(arguments): \(outcome.outputText)\(outcome.errorText)")
    return outcome.outputText
  }

  private static func files(_ root: String) throws -> Set<String> {
    Set(try run("find", [root, "-not", "-type", "d"]).split(separator: "\n").map { String($0.dropFirst(root.count)) })
  }

  /// The names of the units' templates, such as "tidemark-backup@".
  private static func templates(_ kind: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: "\(TestTools.packageRoot)/systemd")
      .filter { $0.hasSuffix("@.\(kind)") }.map { String($0.dropLast(kind.count + 1)) }.sorted()
  }

  @Test("every unit is clean for systemd and exposes at most 2.5")
  func units() throws {
    let (directory, _, root) = try Self.installed.get()
    let services = try Self.templates("service")
    let timers = try Self.templates("timer")
    #expect(services.count >= 3 && timers.count >= 2)
    for unit in services {
      try Self.run(
        "systemd-analyze",
        ["security", "--offline=true", "--threshold=25", "\(root)/lib/systemd/system/\(unit).service"])
    }
    // systemd-analyze looks for the units that ours name, too.
    let units = "\(directory.path)/verified/lib/systemd/system"
    try FileManager.default.createDirectory(
      atPath: "\(directory.path)/verified", withIntermediateDirectories: true)
    try Self.run("cp", ["-a", "\(root)/.", "\(directory.path)/verified"])
    try Self.run("sh", ["-c", "cp -a /lib/systemd/system/*.target \(units)"])
    for (names, kind) in [(services, "service"), (timers, "timer")] {
      for name in names {
        let instance = "\(name)crm.\(kind)"
        try Self.run("ln", ["-sf", "\(name).\(kind)", "\(units)/\(instance)"])
        if kind == "timer" { try Self.run("ln", ["-sf", "\(name).service", "\(units)/\(name)crm.service"]) }
        let verified = try ChildProcess.run(
          "systemd-analyze", ["verify", "--man=no", "--root=\(directory.path)/verified", instance])
        #expect(verified.succeeded && verified.errorText.isEmpty, "\(instance): \(verified.errorText)")
      }
    }
  }

  @Test("a unit calls commands and options that the program has")
  func commands() throws {
    let (_, binary, root) = try Self.installed.get()
    for unit in try Self.templates("service") where unit != "tidemark-notify@" {
      let text = try String(contentsOfFile: "\(root)/lib/systemd/system/\(unit).service", encoding: .utf8)
      let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("ExecStart=") })
      let words = line.dropFirst("ExecStart=".count).split(separator: " ").map(String.init)
      try #require(words.first == "/usr/bin/tidemark")
      let command = words.dropFirst(3).prefix { !$0.hasPrefix("$") }
      try Self.run(binary, Array(command) + ["--help"])
    }
  }

  @Test("what is installed is removed again; configuration stays, directories of others too")
  func removal() throws {
    let (directory, binary, _) = try Self.installed.get()
    let root = "\(directory.path)/removal"
    try FileManager.default.createDirectory(atPath: "\(root)/usr/local/bin", withIntermediateDirectories: true)
    func install(_ more: [String]) throws {
      try Self.run(Self.script("install"), ["--destdir", root] + more)
    }
    try install(["--binary", binary])
    let first = try Self.files(root)
    #expect(first.contains("/usr/local/bin/tidemark"))
    #expect(first.contains("/usr/local/lib/systemd/system/tidemark-backup@.service"))
    let unit = "\(root)/usr/local/lib/systemd/system/tidemark-backup@.service"
    #expect(try String(contentsOfFile: unit, encoding: .utf8).contains("ExecStart=/usr/local/bin/tidemark "))
    // A file of an earlier version goes with the next installation; the operator's stay as they are.
    let list = "\(root)/usr/local/lib/tidemark/installed-files"
    try Self.run(
      "sh", ["-c", "echo /usr/local/lib/tidemark/earlier >>\(list); touch \(root)/usr/local/lib/tidemark/earlier"])
    try "TIDEMARK_BACKUP_OPTIONS=--full\n".write(
      toFile: "\(root)/etc/default/tidemark", atomically: false, encoding: .utf8)
    try install(["--binary", binary])
    #expect(try Self.files(root) == first)
    #expect(try String(contentsOfFile: "\(root)/etc/default/tidemark", encoding: .utf8).contains("--full"))
    try install(["--uninstall"])
    #expect(try Self.files(root) == ["/etc/default/tidemark", "/etc/tidemark/notify.d/10-log"])
    #expect(FileManager.default.fileExists(atPath: "\(root)/usr/local/bin"))
    #expect(!FileManager.default.fileExists(atPath: "\(root)/usr/local/lib"))
    let again = try ChildProcess.run(Self.script("install"), ["--uninstall", "--destdir", root])
    #expect(!again.succeeded)
    #expect(again.errorText.contains("nothing is installed here"))
  }

  @Test("manual pages are clean roff, one for each command, and completions name the commands")
  func pages() throws {
    let (_, _, root) = try Self.installed.get()
    let directory = "\(root)/usr/share/man/man1"
    let pages = try FileManager.default.contentsOfDirectory(atPath: directory)
    #expect(pages.contains("tidemark.1.gz") && pages.contains("tidemark-wal-push.1.gz"))
    for page in pages {
      let checked = try ChildProcess.run("sh", ["-c", "gunzip -c \(directory)/\(page) | groff -man -Tutf8 -ww -z"])
      #expect(checked.succeeded && checked.errorText.isEmpty, "\(page): \(checked.errorText)")
    }
    let bash = "\(root)/usr/share/bash-completion/completions/tidemark"
    let offered = try Self.run(
      "bash", ["-c", "source \(bash); COMP_WORDS=(tidemark wal-p); COMP_CWORD=1; _tidemark; echo ${COMPREPLY[@]}"])
    #expect(offered.contains("wal-push"))
  }

  @Test("each program of notify.d hears of a failed unit, whatever becomes of the others")
  func notification() throws {
    let (directory, _, root) = try Self.installed.get()
    let place = "\(directory.path)/notify.d"
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
    for (name, text) in [("10-fails", "exit 3"), ("20-notes", "echo \"$1\" >\(directory.path)/noted"), ("30-not", "")] {
      try "#!/bin/sh\n\(text)\n".write(toFile: "\(place)/\(name)", atomically: false, encoding: .utf8)
      if name != "30-not" { try Self.run("chmod", ["+x", "\(place)/\(name)"]) }
    }
    let outcome = try ChildProcess.run(
      "\(root)/usr/lib/tidemark/notify-failure", ["tidemark-backup@crm"],
      environment: ["PATH": "/usr/bin:/bin", "TIDEMARK_NOTIFY_DIRECTORY": place])
    #expect(outcome.ending == .exited(1))
    #expect(outcome.errorText.contains("10-fails failed"))
    #expect(try String(contentsOfFile: "\(directory.path)/noted", encoding: .utf8) == "tidemark-backup@crm\n")
  }

  /// The package, built once.
  private static let package = Result { () throws -> String in
    let (directory, binary, _) = try installed.get()
    return try run(script("build-deb"), ["--binary", binary, "--output", directory.path])
      .trimmingCharacters(in: .whitespacesAndNewlines)
  }

  @Test(
    "the commands of the runbooks do what the runbooks say", .enabled(if: geteuid() == 0),
    arguments: [
      ["first-set-up", "keys", "ransomware"], ["patroni"],
      ["first-set-up", "dropped-table", "point-in-time", "drill", "region-lost", "new-host", "postgres-upgrade"],
    ])
  func runbooks(_ names: [String]) throws {
    try carryOut(names, names.map { "\(TestTools.packageRoot)/docs/operating/\($0).md" })
  }

  @Test(
    "each unit does its work as its user, with its keys alone and the file system read-only",
    .enabled(if: geteuid() == 0))
  func unitsAtWork() throws {
    let page = "\(TestTools.packageRoot)/docs/operating/first-set-up.md"
    try carryOut(["first-set-up", "test-units"], [page, Self.script("test-units")])
  }

  private func carryOut(_ names: [String], _ pages: [String]) throws {
    let outcome = try ChildProcess.run(
      Self.script("test-runbooks"), [try Self.package.get(), try TestTools.program("rclone")] + pages,
      deadline: .after(.seconds(300)))
    #expect(outcome.succeeded, "\(outcome.outputText)\(outcome.errorText)")
    for name in names { #expect(outcome.outputText.contains("-\(name) passed"), "\(outcome.outputText)") }
  }

  @Test("the program is linked with no library that only some runs need: each costs every start")
  func linkedLibraries() throws {
    let linked = try Self.run("readelf", ["--dynamic", "--wide", Self.installed.get().binary])
      .split(separator: "\n").filter { $0.contains("(NEEDED)") }.joined(separator: "\n")
    #expect(linked.contains("libzstd"), "\(linked)")
    for library in ["libcurl", "libpq", "libssl"] { #expect(!linked.contains(library), "\(linked)") }
  }

  @Test("the Debian package installs and runs, and its removal leaves keys alone", .enabled(if: geteuid() == 0))
  func package() throws {
    let directory = try Self.installed.get().directory
    let package = try Self.package.get()
    let depends = try Self.run("dpkg-deb", ["--field", package, "Depends"])
    for library in ["libpq5", "libcurl4", "libzstd1", "libssl3", "libc6"] { #expect(depends.contains(library)) }
    // The host's files below, changes in memory: dpkg and the maintainer scripts do all that they do on a host.
    let script = """
      set -e
      mount --make-rprivate /
      view=\(directory.path)/view
      mkdir $view
      mount -t tmpfs tmpfs $view
      mkdir $view/changes $view/work $view/root
      mount -t overlay overlay -o lowerdir=/,upperdir=$view/changes,workdir=$view/work $view/root
      cp \(package) $view/root/root/tidemark.deb
      mount -t proc proc $view/root/proc
      mount --bind /dev $view/root/dev
      exec chroot $view/root sh -e -c '
        dpkg --install /root/tidemark.deb
        tidemark --version
        id -un tidemark
        stat -c "%U %a" /var/lib/tidemark /var/lib/tidemark-drill
        mkdir /etc/tidemark/crm.writer
        echo secret >/etc/tidemark/crm.writer/writer.key
        echo TIDEMARK_BACKUP_OPTIONS=--full >/etc/default/tidemark
        dpkg --install /root/tidemark.deb
        cat /etc/default/tidemark
        dpkg --remove tidemark
        test ! -e /usr/bin/tidemark
        test -e /etc/default/tidemark
        dpkg --purge tidemark
        test ! -e /etc/default/tidemark
        test ! -e /etc/tidemark/notify.d
        cat /etc/tidemark/crm.writer/writer.key
        test -z "$(find /usr /lib/systemd /etc -path "*tidemark*" -not -path "/etc/tidemark*" -not -path "/usr/local/*")"
        echo finished
      '
      """
    let outcome = try ChildProcess.run("unshare", ["--mount", "sh", "-c", script], deadline: .after(.seconds(120)))
    #expect(outcome.succeeded, "\(outcome.outputText)\(outcome.errorText)")
    for line in [
      "tidemark\n", "postgres 750\ntidemark 750\n", "TIDEMARK_BACKUP_OPTIONS=--full\n", "secret\n", "finished\n",
    ] {
      #expect(outcome.outputText.contains(line), "\(outcome.outputText)")
    }
  }
}
