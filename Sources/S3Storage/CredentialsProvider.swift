// Where credentials come from. The configured file, if there is one, and nothing else; otherwise the first of these that
// is there, as in AWS's own SDKs: the environment, a web identity, the shared credentials file, the container's service,
// the instance's metadata. A source that is there and fails is an error: the next one would be somebody else's rights.
//
// They are asked for anew for each request, so that a rotated file is used without a restart. What is fetched over the
// network is kept until shortly before it expires. Where nobody answers, that is remembered, so it costs its time once.
import Diagnostics
import Foundation
import Synchronization
import SystemSupport

package final class CredentialsProvider: Sendable {
  private enum Source: Sendable {
    case fixed(Credentials)
    case file(String, profile: String)
    case surroundings(CredentialsSurroundings, profile: String?)
  }

  private struct Kept {
    var credentials: Credentials
    /// When they are to be fetched anew; `nil` for never.
    var renewal: ContinuousClock.Instant?
  }

  /// Fetched credentials are renewed this long before they expire, or at half of a shorter life.
  static let renewalMargin = Duration.seconds(300)
  /// How soon a renewal that failed, or brought credentials that are as good as expired, is tried again.
  private static let renewalPause = Duration.seconds(30)

  private let source: Source
  /// Held while credentials are fetched: of several threads one asks, and the others wait for its answer.
  private let kept = Mutex<Kept?>(nil)

  package init(fixed: Credentials) { source = .fixed(fixed) }

  /// `file` is the configured one; without it, what the process's surroundings offer.
  package init(
    file: String?, profile: String?, environment: [String: String] = ProcessInfo.processInfo.environment
  ) {
    source =
      file.map { .file($0, profile: profile ?? "default") }
      ?? .surroundings(CredentialsSurroundings(environment), profile: profile)
  }

  /// The credentials for one request.
  /// - Throws: `credentials-missing`, `key-file-mode-open`, what reading the file throws, and, where credentials come
  ///   over the network, `access-denied`, `region-unreachable` and `store-answer-invalid`.
  package func current(deadline: Deadline = .never) throws(TidemarkError) -> Credentials {
    switch source {
    case .fixed(let credentials): return credentials
    case .file(let path, let profile): return try SharedCredentialsFile.read(path, profile: profile)
    case .surroundings(let surroundings, let profile):
      return try kept.withLock { (kept) throws(TidemarkError) -> Credentials in
        if let kept, kept.renewal.map({ .now < $0 }) ?? false { return kept.credentials }
        do throws(TidemarkError) {
          let credentials = try surroundings.credentials(profile: profile, deadline: deadline)
          // What is read from memory or a file is read anew each time.
          kept = credentials.expires.map { Kept(credentials: credentials, renewal: Self.renewal(expires: $0)) }
          return credentials
        } catch {
          // The old ones may still be good: the store decides that, not a service that is ill at the moment.
          guard var old = kept, error.code != .interrupted, let expires = old.credentials.expires,
            Double(expires) > Timestamp.now()
          else { throw error }
          old.renewal = .now + Self.renewalPause
          kept = old
          return old.credentials
        }
      }
    }
  }

  /// The store refused `rejected` as expired: the next request gets others, if there are any.
  package func renew(rejected: Credentials) {
    // Another thread may have renewed them already.
    kept.withLock { if $0?.credentials.accessKey == rejected.accessKey { $0 = nil } }
  }

  private static func renewal(expires: Int64) -> ContinuousClock.Instant {
    let life = Duration.seconds(Double(expires) - Timestamp.now())
    return .now + max(renewalPause, life - min(renewalMargin, life / 2))
  }
}
