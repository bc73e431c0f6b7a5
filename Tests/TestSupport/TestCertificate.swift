// A certificate authority and a server certificate for 127.0.0.1 and localhost, made by the openssl program.
import Diagnostics
import SystemSupport

package final class TestCertificate: Sendable {
  private let temporary: TemporaryDirectory
  /// What a client must trust.
  package let authorityPath: String
  package let certificatePath: String
  package let keyPath: String

  /// - Parameter days: until the server's certificate ends.
  package init(days: Int = 2) throws(TidemarkError) {
    temporary = try TemporaryDirectory()
    let directory = temporary.path
    authorityPath = "\(directory)/ca.crt"
    certificatePath = "\(directory)/server.crt"
    keyPath = "\(directory)/server.key"
    try Self.openssl([
      "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "\(days)",
      "-subj", "/CN=Tidemark test authority", "-keyout", "\(directory)/ca.key", "-out", authorityPath,
    ])
    try Self.openssl([
      "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
      "-keyout", keyPath, "-out", "\(directory)/server.csr",
    ])
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
    _ = try DurableFile.create(Array(names.utf8), at: "\(directory)/names")
    try Self.openssl([
      "x509", "-req", "-in", "\(directory)/server.csr", "-CA", authorityPath, "-CAkey", "\(directory)/ca.key",
      "-CAcreateserial", "-days", "\(days)", "-extfile", "\(directory)/names", "-out", certificatePath,
    ])
  }

  private static func openssl(_ arguments: [String]) throws(TidemarkError) {
    let outcome = try ChildProcess.run("openssl", arguments, deadline: .after(.seconds(30)))
    guard outcome.succeeded else {
      throw TidemarkError(.localIO, "openssl failed", object: arguments[0], cause: outcome.errorText)
    }
  }
}
