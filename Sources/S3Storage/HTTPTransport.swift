// HTTP/1.1 over libcurl's easy handles. A handle belongs to one thread while it is checked out; idle handles keep their
// connections. TLS certificates are always verified. Redirects are never followed: an answer's signature wouldn't fit.
import CLibcurl
import Diagnostics
import Glibc
import ObjectStorage
import Synchronization
import SystemSupport

/// How long a request may take.
package struct S3Limits: Sendable {
  /// From the first packet to a connection that can be used, TLS included.
  package var connect: Duration = .seconds(10)
  /// Without a byte in either direction.
  package var silence: Duration = .seconds(30)
  /// One attempt, however well it goes.
  package var attempt: Duration = .seconds(600)
  /// What the first attempt gets, though the caller's deadline be nearer.
  package var firstAttempt: Duration = .seconds(2)
  package init() {}
}

final class HTTPTransport: Sendable {
  private let idle = Mutex<[CurlHandle]>([])
  private let limits: S3Limits
  private let certificateAuthorityFile: String?
  /// Idle handles beyond this are closed.
  private static let idleCountMax = 64
  /// libcurl's functions, loaded when they are first needed.
  private static let functions = Result { () throws(TidemarkError) in
    LibcurlFunctions(
      try SharedLibrary.load("libcurl.so.4", package: "libcurl4", into: clibcurl()) { library, functions in
        clibcurl_find(library, &functions).map { String(cString: $0) }
      })
  }
  /// They and what they need, made ready by the first request.
  private static let library: Result<LibcurlFunctions, TidemarkError> = {
    // OpenSSL writes to sockets whose peer may be gone, and CURLOPT_NOSIGNAL leaves SIGPIPE to us.
    Termination.ignoreBrokenPipes()
    return Result { () throws(TidemarkError) in
      let library = try functions.get()
      guard clibcurl_initialize(library.functions) == CURLE_OK else {
        throw TidemarkError(.localIO, "libcurl can't be initialised")
      }
      return library
    }
  }()

  /// Loads the library before the first request does. It isn't made ready here: that would have libcrypto's own preparation
  /// wait, which the keys need.
  static func loadLibrary() throws(TidemarkError) { _ = try functions.get() }

  init(limits: S3Limits, certificateAuthorityFile: String?) {
    self.limits = limits
    self.certificateAuthorityFile = certificateAuthorityFile
  }

  /// Sends `request` once, within `timeout`; see ``HTTPRequest/movingTimeout``. Every outcome is an exchange; one that is not complete says why in `failure`.
  func perform(
    _ request: HTTPRequest, timeout: Duration, buffer: ReceiveBuffer? = nil
  ) -> (exchange: HTTPExchange, bytesReceived: Int64) {
    let handle: CurlHandle
    do throws(TidemarkError) {
      handle = if let idle = idle.withLock({ $0.popLast() }) { idle } else { try CurlHandle(Self.library.get()) }
    } catch {
      var exchange = HTTPExchange()
      exchange.failure = TransportFailure(kind: .local, text: error.description)
      return (exchange, 0)
    }
    let transfer = HTTPTransfer(
      request, silenceLimit: limits.silence, answerLimit: request.movingTimeout == nil ? nil : timeout, buffer: buffer)
    handle.perform(
      request, transfer, timeout: max(timeout, request.movingTimeout ?? timeout), limits: limits,
      authority: certificateAuthorityFile)
    idle.withLock { if $0.count < Self.idleCountMax { $0.append(handle) } }
    return (transfer.exchange, transfer.bytesReceived)
  }
}

/// libcurl's functions.
///
/// `@unchecked Sendable`: pointers to functions that may be called from any thread, and that are never changed.
private struct LibcurlFunctions: @unchecked Sendable {
  let functions: clibcurl
  init(_ functions: clibcurl) { self.functions = functions }
}

/// A libcurl easy handle.
///
/// `@unchecked Sendable`: the pool hands it to one thread at a time, and libcurl's handles may move between threads.
private final class CurlHandle: @unchecked Sendable {
  private let curl: clibcurl
  private let handle: UnsafeMutableRawPointer
  private let errorText: UnsafeMutablePointer<CChar>

  init(_ library: LibcurlFunctions) throws(TidemarkError) {
    curl = library.functions
    guard let handle = curl.curl_easy_init() else { throw TidemarkError(.localIO, "libcurl is out of memory") }
    self.handle = handle
    errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
  }

  deinit {
    curl.curl_easy_cleanup(handle)
    errorText.deallocate()
  }

  func perform(
    _ request: HTTPRequest, _ transfer: HTTPTransfer, timeout: Duration, limits: S3Limits, authority: String?
  ) {
    curl.curl_easy_reset(handle)
    errorText[0] = 0
    var headers: UnsafeMutablePointer<curl_slist>?
    defer { curl.curl_slist_free_all(headers) }
    // `Expect:` costs a round trip or a second's wait for each PUT.
    for line in request.headers.map({ "\($0.name): \($0.value)" }) + ["Expect:"] {
      guard let longer = curl.curl_slist_append(headers, line) else {
        return transfer.fail(TransportFailure(kind: .local, text: "out of memory"))
      }
      headers = longer
    }
    let code = withExtendedLifetime(transfer) { () -> CURLcode in
      let setting = configure(request, transfer, headers, timeout: timeout, limits: limits, authority: authority)
      return setting == CURLE_OK ? curl.curl_easy_perform(handle) : setting
    }
    if code != CURLE_OK, !(code == CURLE_WRITE_ERROR && transfer.endedEarly) {
      transfer.fail(failure(code))
    }
    transfer.finish()
  }

  /// Sets every option; the first refusal ends it.
  private func configure(
    _ request: HTTPRequest, _ transfer: HTTPTransfer, _ headers: UnsafeMutablePointer<curl_slist>?, timeout: Duration,
    limits: S3Limits, authority: String?
  ) -> CURLcode {
    // Not retained: the transfer outlives curl_easy_perform.
    let context = Unmanaged.passUnretained(transfer).toOpaque()
    let seconds = { (duration: Duration) in Int(max(1, min(duration.milliseconds, 86_400_000))) }
    var codes = [
      clibcurl_set_pointer(curl, handle, CURLOPT_ERRORBUFFER, errorText),
      clibcurl_set_string(curl, handle, CURLOPT_URL, request.url),
      clibcurl_set_string(curl, handle, CURLOPT_PROTOCOLS_STR, "http,https"),
      clibcurl_set_string(curl, handle, CURLOPT_CUSTOMREQUEST, request.method),
      clibcurl_set_list(curl, handle, CURLOPT_HTTPHEADER, headers),
      clibcurl_set_long(curl, handle, CURLOPT_NOSIGNAL, 1),
      clibcurl_set_long(curl, handle, CURLOPT_PATH_AS_IS, 1),
      clibcurl_set_long(curl, handle, CURLOPT_TCP_KEEPALIVE, 1),
      clibcurl_set_long(curl, handle, CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1)),
      clibcurl_set_long(curl, handle, CURLOPT_UPLOAD_BUFFERSIZE, 128 << 10),
      clibcurl_set_long(curl, handle, CURLOPT_BUFFERSIZE, 512 << 10),
      clibcurl_set_long(curl, handle, CURLOPT_SSL_VERIFYPEER, 1),
      clibcurl_set_long(curl, handle, CURLOPT_SSL_VERIFYHOST, 2),
      clibcurl_set_long(curl, handle, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1),
      clibcurl_set_long(curl, handle, CURLOPT_CONNECTTIMEOUT_MS, seconds(limits.connect)),
      clibcurl_set_long(curl, handle, CURLOPT_TIMEOUT_MS, seconds(timeout)),
      clibcurl_set_long(curl, handle, CURLOPT_NOPROGRESS, 0),
      clibcurl_set_progress_function(curl, handle, progressCallback),
      clibcurl_set_pointer(curl, handle, CURLOPT_XFERINFODATA, context),
      clibcurl_set_data_function(curl, handle, CURLOPT_HEADERFUNCTION, headerCallback),
      clibcurl_set_pointer(curl, handle, CURLOPT_HEADERDATA, context),
      clibcurl_set_data_function(curl, handle, CURLOPT_WRITEFUNCTION, writeCallback),
      clibcurl_set_pointer(curl, handle, CURLOPT_WRITEDATA, context),
    ]
    if let authority { codes.append(clibcurl_set_string(curl, handle, CURLOPT_CAINFO, authority)) }
    if request.bypassesProxies { codes.append(clibcurl_set_string(curl, handle, CURLOPT_NOPROXY, "*")) }
    switch request.method {
    case "HEAD": codes.append(clibcurl_set_long(curl, handle, CURLOPT_NOBODY, 1))
    case "PUT", "POST":
      codes += [
        clibcurl_set_long(curl, handle, CURLOPT_UPLOAD, 1),
        clibcurl_set_offset(curl, handle, CURLOPT_INFILESIZE_LARGE, curl_off_t(request.body.byteCount)),
        clibcurl_set_data_function(curl, handle, CURLOPT_READFUNCTION, readCallback),
        clibcurl_set_pointer(curl, handle, CURLOPT_READDATA, context),
        clibcurl_set_seek_function(curl, handle, seekCallback),
        clibcurl_set_pointer(curl, handle, CURLOPT_SEEKDATA, context),
      ]
    default: break
    }
    return codes.first { $0 != CURLE_OK } ?? CURLE_OK
  }

  /// The one place where libcurl's codes get a meaning (libcurl-errors(3)).
  private func failure(_ code: CURLcode) -> TransportFailure {
    let own = String(cString: errorText)
    let text = own.isEmpty ? curl.curl_easy_strerror(code).map { String(cString: $0) } ?? "\(code)" : own
    let kind: TransportFailure.Kind =
      switch code {
      case CURLE_OPERATION_TIMEDOUT: .timeout
      case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_CERTPROBLEM:
        .trust
      case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL, CURLE_OUT_OF_MEMORY, CURLE_BAD_FUNCTION_ARGUMENT,
        CURLE_UNKNOWN_OPTION, CURLE_NOT_BUILT_IN:
        .local
      default: .connection
      }
    return TransportFailure(kind: kind, text: text)
  }
}

// The context is the transfer that `configure` passed; it lives until curl_easy_perform has returned.
private func transfer(_ context: UnsafeMutableRawPointer?) -> HTTPTransfer? {
  context.map { Unmanaged<HTTPTransfer>.fromOpaque($0).takeUnretainedValue() }
}

private let headerCallback: clibcurl_data_function = { bytes, size, count, context in
  transfer(context)?.receiveHeader(UnsafeRawBufferPointer(start: bytes, count: size * count))
  return size * count
}

private let writeCallback: clibcurl_data_function = { bytes, size, count, context in
  let chunk = UnsafeRawBufferPointer(start: bytes, count: size * count)
  // Any other number than all of them ends the transfer.
  return transfer(context)?.receiveBody(chunk) == true ? chunk.count : chunk.count &+ 1
}

private let readCallback: clibcurl_data_function = { bytes, size, count, context in
  transfer(context)?.supply(UnsafeMutableRawBufferPointer(start: bytes, count: size * count)) ?? 0
}

private let seekCallback: clibcurl_seek_function = { context, offset, origin in
  guard origin == SEEK_SET, transfer(context)?.seek(to: Int64(offset)) == true else { return CURL_SEEKFUNC_FAIL }
  return CURL_SEEKFUNC_OK
}

private let progressCallback: clibcurl_progress_function = { context, _, received, _, sent in
  transfer(context)?.progress(received: Int64(received), sent: Int64(sent)) == true ? 0 : 1
}
