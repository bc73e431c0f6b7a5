// Where credentials come from. They are asked for anew for each request.
import Diagnostics

package final class CredentialsProvider: Sendable {
  private let fixed: Credentials

  package init(fixed: Credentials) { self.fixed = fixed }

  package func current() throws(TidemarkError) -> Credentials { fixed }
  package func renew() {}
}
