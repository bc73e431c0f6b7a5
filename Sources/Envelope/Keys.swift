// The keys: recipients and identities (X25519, to which data keys are wrapped) and writers (Ed25519, which sign).
// Secrets never show in a description.
import Crypto
import Diagnostics
import Foundation

/// The first 8 bytes of SHA-256 of a public key.
package struct KeyID: Hashable, Sendable, CustomStringConvertible {
  package let bytes: [UInt8]
  init(publicKey: [UInt8]) { bytes = Array(SHA256Digest.of(publicKey).bytes.prefix(8)) }
  init(bytes: [UInt8]) {
    precondition(bytes.count == 8)
    self.bytes = bytes
  }
  package var description: String { hexadecimalText(bytes) }
}

/// A public key to which data is sealed.
package struct RecipientPublicKey: Hashable, Sendable, CustomStringConvertible {
  static let prefix = "tidemark-recipient-"
  let bytes: [UInt8]
  package let id: KeyID

  init(bytes: [UInt8]) {
    self.bytes = bytes
    id = KeyID(publicKey: bytes)
  }
  /// - Throws: `key-file-invalid`.
  package init(text: String) throws(TidemarkError) {
    self.init(bytes: try KeyText.decode(text, prefix: Self.prefix, what: "a recipient's public key"))
    guard agreesOnSecrets else {
      throw TidemarkError(
        .keyFileInvalid, "a recipient's public key is worthless: anybody could open what is sealed to it", object: text)
    }
  }

  /// Whether a key agreement gives a secret. With a point of small order it gives zeroes, which RFC 9180, section 7.1.4
  /// (and RFC 7748, section 6.1) want refused and swift-crypto's HPKE lets pass.
  private var agreesOnSecrets: Bool {
    // Bytes that are no key, and an agreement that fails, agree on nothing.
    guard let key = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: bytes),
      let secret = try? Curve25519.KeyAgreement.PrivateKey().sharedSecretFromKeyAgreement(with: key)
    else { return false }
    return secret.withUnsafeBytes { $0.contains { $0 != 0 } }
  }
  package var description: String { KeyText.encode(Self.prefix, bytes) }
}

/// The private key that opens what is sealed to its recipient.
package struct Identity: Sendable, CustomStringConvertible {
  static let prefix = "tidemark-identity-secret-"
  let key: Curve25519.KeyAgreement.PrivateKey

  init(key: Curve25519.KeyAgreement.PrivateKey) { self.key = key }
  /// A new key from the system's random numbers.
  package init() { key = Curve25519.KeyAgreement.PrivateKey() }
  /// - Throws: `key-file-invalid`.
  package init(secretText: String) throws(TidemarkError) {
    let bytes = try KeyText.decode(secretText, prefix: Self.prefix, what: "an identity's secret")
    do { key = try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: bytes) } catch {
      throw TidemarkError(.keyFileInvalid, "an identity's secret isn't a key")
    }
  }
  package var recipient: RecipientPublicKey { RecipientPublicKey(bytes: Array(key.publicKey.rawRepresentation)) }
  package var secretText: String { KeyText.encode(Self.prefix, Array(key.rawRepresentation)) }
  package var description: String { "identity \(recipient.id)" }
}

/// The public half of a writer key: who is trusted to have written.
package struct WriterPublicKey: Hashable, Sendable, CustomStringConvertible {
  static let prefix = "tidemark-writer-"
  let bytes: [UInt8]
  package let id: KeyID

  init(bytes: [UInt8]) {
    self.bytes = bytes
    id = KeyID(publicKey: bytes)
  }
  /// - Throws: `key-file-invalid`.
  package init(text: String) throws(TidemarkError) {
    self.init(bytes: try KeyText.decode(text, prefix: Self.prefix, what: "a writer's public key"))
  }
  package var description: String { KeyText.encode(Self.prefix, bytes) }

  func verifies(_ signature: [UInt8], _ message: [UInt8]) -> Bool {
    // What isn't a key has signed nothing.
    guard let key = try? Curve25519.Signing.PublicKey(rawRepresentation: bytes) else { return false }
    return key.isValidSignature(signature, for: message)
  }
}

/// The key that signs objects. From the same 32 bytes comes a key agreement key, so that the writer opens its own
/// manifests and file tables without an identity.
package struct WriterKey: Sendable, CustomStringConvertible {
  static let prefix = "tidemark-writer-secret-"
  private let key: Curve25519.Signing.PrivateKey
  package let ownIdentity: Identity
  package let publicKey: WriterPublicKey

  private init(key: Curve25519.Signing.PrivateKey) throws(TidemarkError) {
    self.key = key
    publicKey = WriterPublicKey(bytes: Array(key.publicKey.rawRepresentation))
    // HKDF-SHA256 (RFC 5869), no salt.
    let derived = HKDF<SHA256>.deriveKey(
      inputKeyMaterial: SymmetricKey(data: key.rawRepresentation), info: Data("tidemark writer agreement v1".utf8),
      outputByteCount: 32)
    do {
      ownIdentity = Identity(
        key: try derived.withUnsafeBytes { try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: Array($0)) })
    } catch { throw TidemarkError(.internalFault, "cannot derive the writer's own identity") }
  }

  /// A new key from the system's random numbers.
  package init() throws(TidemarkError) { try self.init(key: Curve25519.Signing.PrivateKey()) }

  /// - Throws: `key-file-invalid`.
  package init(secretText: String) throws(TidemarkError) {
    let bytes = try KeyText.decode(secretText, prefix: Self.prefix, what: "a writer's secret")
    let key: Curve25519.Signing.PrivateKey
    do { key = try Curve25519.Signing.PrivateKey(rawRepresentation: bytes) } catch {
      throw TidemarkError(.keyFileInvalid, "a writer's secret isn't a key")
    }
    try self.init(key: key)
  }

  package var ownRecipient: RecipientPublicKey { ownIdentity.recipient }
  package var secretText: String { KeyText.encode(Self.prefix, Array(key.rawRepresentation)) }
  package var description: String { "writer \(publicKey.id)" }

  func sign(_ message: [UInt8]) throws(TidemarkError) -> [UInt8] {
    do { return Array(try key.signature(for: message)) } catch {
      throw TidemarkError(.internalFault, "cannot sign", cause: "\(error)")
    }
  }
}
