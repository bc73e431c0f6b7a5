// The key of one object, and its wrapping for recipients: HPKE (RFC 9180) base mode, X25519-HKDF-SHA256, HKDF-SHA256,
// AES-256-GCM. The header's digest is associated data, so a wrapped key can't move to another object.
import Crypto
import Diagnostics
import Foundation

/// 32 bytes that seal one object. Wiped when the last copy goes.
package struct DataKey: Sendable {
  private static let suite = HPKE.Ciphersuite(
    kem: .Curve25519_HKDF_SHA256, kdf: .HKDF_SHA256, aead: .AES_GCM_256)
  static let info = Array("tidemark data key v1".utf8)
  private let key: SymmetricKey

  /// 32 bytes from the system's random numbers.
  init() { key = SymmetricKey(size: .bits256) }

  /// - Precondition: 32 bytes.
  init(bytes: some ContiguousBytes) {
    key = SymmetricKey(data: bytes)
    precondition(key.bitCount == FrameCipher.keyByteCount * 8)
  }

  func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try key.withUnsafeBytes(body)
  }

  func wrap(for recipient: RecipientPublicKey, headerDigest: SHA256Digest) throws(TidemarkError) -> WrappedKey {
    do {
      let publicKey = try Curve25519.KeyAgreement.PublicKey(rawRepresentation: recipient.bytes)
      var sender = try HPKE.Sender(recipientKey: publicKey, ciphersuite: Self.suite, info: Data(Self.info))
      let ciphertext = try key.withUnsafeBytes { try sender.seal($0, authenticating: headerDigest.bytes) }
      return WrappedKey(
        recipient: recipient.id, encapsulated: Array(sender.encapsulatedKey), ciphertext: Array(ciphertext))
    } catch {
      throw TidemarkError(
        .keyFileInvalid, "cannot seal to a recipient", object: recipient.description, cause: "\(error)",
        next: "check encryption.recipients")
    }
  }

  /// Unwraps the data key with the first identity that it is wrapped for.
  /// - Throws: `no-key-opens`, `object-damaged`.
  static func unwrap(
    _ header: SealedHeader, headerDigest: SHA256Digest, _ identities: [Identity]
  ) throws(TidemarkError) -> DataKey {
    var refusal: TidemarkError?
    for identity in identities {
      for wrapped in header.wrappedKeys where wrapped.recipient == identity.recipient.id {
        do {
          let key = try open(
            wrapped.ciphertext, encapsulated: wrapped.encapsulated, with: identity, info: info,
            associated: headerDigest.bytes)
          guard key.count == FrameCipher.keyByteCount else { throw CryptoKitError.incorrectKeySize }
          return DataKey(bytes: key)
        } catch {
          refusal = TidemarkError(
            .objectDamaged, "the wrapped data key doesn't open", object: header.name,
            cause: "wrapped for \(wrapped.recipient): \(error)")
        }
      }
    }
    if let refusal { throw refusal }
    throw TidemarkError(
      .noKeyOpens,
      identities.isEmpty ? "this host has no identity to open the object" : "no identity here opens the object",
      object: header.name, cause: "it is sealed to \(header.recipients.map(\.description).joined(separator: ", "))",
      kept: "the object, unchanged",
      next:
        "put the identity's secret into encryption.identity-file; 'tidemark keys list' shows the ids of the keys here")
  }

  /// HPKE's single-shot opening, RFC 9180 section 6.1, with the suite of all sealed objects.
  static func open(
    _ ciphertext: [UInt8], encapsulated: [UInt8], with identity: Identity, info: [UInt8], associated: [UInt8]
  ) throws -> Data {
    var recipient = try HPKE.Recipient(
      privateKey: identity.key, ciphersuite: suite, info: Data(info), encapsulatedKey: Data(encapsulated))
    return try recipient.open(ciphertext, authenticating: associated)
  }
}
