// What the surroundings of a systemd unit change: its credentials stand for the key and credential files of the same
// names, and its state directory for the configured one. So one configuration serves the archive command, the writer's
// units and those of other roles, each with the keys that it was given.
// Source: systemd.exec(5), LoadCredential= (a directory's files become ID_NAME) and StateDirectory=.
import Diagnostics
import Glibc
import SystemSupport

extension TidemarkConfiguration {
  /// The id that the units give with `LoadCredential=tidemark:DIRECTORY`.
  private static let credentialPrefix = "tidemark_"

  /// The configuration with the files that the unit was given.
  /// - Throws: `configuration-invalid` when two files of the same name are named: it would not be clear which is meant.
  package func inUnit(environment: (String) -> String?) throws(TidemarkError) -> TidemarkConfiguration {
    var result = self
    if let directory = environment("TIDEMARK_STATE_DIRECTORY") {
      guard directory.hasPrefix("/") else {
        throw TidemarkError(
          .configurationInvalid, "TIDEMARK_STATE_DIRECTORY is not an absolute path", object: directory)
      }
      result.stateDirectory = directory
    }
    guard let directory = environment("CREDENTIALS_DIRECTORY") else { return result }
    var named: [String: String] = [:]
    func replaced(_ path: String?) throws(TidemarkError) -> String? {
      guard let path else { return nil }
      let name = baseName(path)
      let given = "\(directory)/\(Self.credentialPrefix)\(name)"
      guard fileExists(given) else { return path }
      if let other = named.updateValue(path, forKey: name), other != path {
        throw TidemarkError(
          .configurationInvalid, "two files have the same name, so a unit's credential can't stand for either",
          object: file, cause: "\(other) and \(path)", next: "give them different names")
      }
      return given
    }
    result.encryption.identityFile = try replaced(encryption.identityFile)
    result.encryption.writerKeyFile = try replaced(encryption.writerKeyFile)
    for (index, region) in repository.regions.enumerated() {
      guard case .bucket(var bucket) = region.store else { continue }
      bucket.credentialsFile = try replaced(bucket.credentialsFile)
      result.repository.regions[index].store = .bucket(bucket)
    }
    for (index, receiver) in notifications.enumerated() {
      if case .webhookFile(let path) = receiver.means, let given = try replaced(path) {
        result.notifications[index].means = .webhookFile(given)
      }
      result.notifications[index].secretFile = try replaced(receiver.secretFile)
    }
    return result
  }

  static func environmentValue(_ name: String) -> String? {
    guard let value = getenv(name).map({ String(cString: $0) }), !value.isEmpty else { return nil }
    return value
  }
}
