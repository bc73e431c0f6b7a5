// `notify`: sends a message to every receiver of the configuration. It tries out what the configuration says, and lets
// others (a unit's OnFailure=) speak through the same receivers.
import ArgumentParser
import BackupRepository
import Configuration
import Diagnostics
import Monitoring
import PostgresFormats

struct NotifyCommand: TidemarkCommand {
  static let configuration = CommandConfiguration(
    commandName: "notify", abstract: "Send a message to every receiver that the configuration names.")
  @OptionGroup var global: GlobalOptions
  @Argument(help: "What to say.") var summary = "a trial of Tidemark's notifications"
  var recordedName: String? { nil }

  struct Report: Encodable {
    struct Receiver: Encodable {
      var name: String
      var delivered: Bool
      var cause: String?
    }
    var receivers: [Receiver]
  }

  func execute() throws(TidemarkError) -> Int32 {
    let context = try CommandContext(global)
    let (targets, unusable) = context.notificationTargets()
    guard !targets.isEmpty || !unusable.isEmpty else {
      throw TidemarkError(
        .configurationInvalid, "the configuration names no receiver", object: context.configurationPath,
        next: "add 'notifications'")
    }
    let notifier = Notifier(targets, stateDirectory: context.configuration.stateDirectory, version: Version.text)
    let failed = notifier.deliver(
      NotificationMessage(
        .message, .firing, cluster: context.configuration.cluster, command: "notify",
        time: RecoveryTime(microseconds: wallClockMicroseconds()).description, summary: summary, exitStatus: 0))
    let causes = Dictionary(uniqueKeysWithValues: failed.map { ($0.target, $0.cause) } + unusable)
    let report = Report(
      receivers: context.configuration.notifications.map { receiver in
        Report.Receiver(
          name: receiver.name, delivered: causes[receiver.name] == nil, cause: causes[receiver.name])
      })
    try context.print(report) {
      report.receivers.map { "\($0.delivered ? "delivered" : "FAILED   ") \($0.name) \($0.cause ?? "")\n" }.joined()
    }
    return causes.isEmpty ? 0 : ExitStatus.findings.rawValue
  }
}
