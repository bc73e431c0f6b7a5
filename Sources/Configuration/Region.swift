// One region as the configuration names it: a bucket at an endpoint, or a directory. How it is reached (credentials,
// certificates, addressing) is said here and carried out by the object stores.

/// One copy of the repository.
package struct Region: Sendable, Equatable {
  /// The operator's name, used in messages, reports and metrics.
  package var name: String
  package var store: Store

  /// What holds the objects.
  package enum Store: Sendable, Equatable {
    /// `file:///path`: the absolute path.
    case directory(String)
    case bucket(Bucket)
  }

  /// A bucket of an S3 service.
  package struct Bucket: Sendable, Equatable {
    package var endpoint: Endpoint
    package var name: String
    /// The region of the signature, such as `us-west-2`.
    package var region: String
    package var addressing: Addressing
    /// A file in the AWS shared format; `nil`: the environment, shared file, web identity or instance metadata.
    package var credentialsFile: String?
    /// The section of the credentials file.
    package var profile: String?
    /// PEM certificates of the authorities to trust in place of the system's.
    package var caFile: String?
    package var connectTimeout: Duration
    /// A request that has moved no byte for this long has failed.
    package var silenceLimit: Duration
  }

  /// How a bucket is named in requests.
  package enum Addressing: String, Sendable, Equatable, CaseIterable {
    /// `https://endpoint/bucket/key`
    case path
    /// `https://bucket.endpoint/key`
    case virtualHosted = "virtual-hosted"
  }
}
