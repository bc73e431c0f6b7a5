// One POST to an address that isn't a store: a webhook. It is here because the process has one HTTP client, and that is
// this target's. Certificates are verified and redirects not followed, as for stores.
import SystemSupport

package struct HTTPPost: Sendable {
  package enum Outcome: Sendable, Equatable {
    case answered(status: Int)
    /// In libcurl's words.
    case failed(String, isRetryable: Bool)
  }

  private let request: HTTPRequest
  private let transport: HTTPTransport

  /// - Parameter certificateAuthorityFile: PEM certificates of the authorities to trust; `nil` for the system's.
  package init(
    url: String, headers: [(name: String, value: String)], body: [UInt8], certificateAuthorityFile: String?
  ) {
    request = HTTPRequest(method: "POST", url: url, headers: headers, body: [body])
    transport = HTTPTransport(limits: S3Limits(), certificateAuthorityFile: certificateAuthorityFile)
  }

  /// Sends it once.
  package func send(timeout: Duration) -> Outcome {
    let exchange = transport.perform(request, timeout: timeout).exchange
    // What the receiver says beyond its status is of no interest, however long it is.
    if exchange.status >= 100 { return .answered(status: exchange.status) }
    let failure = exchange.failure ?? TransportFailure(kind: .connection, text: "the receiver answered nothing")
    return .failed(failure.text, isRetryable: failure.isRetryable)
  }
}
