// The key of one object, and its wrapping for recipients: HPKE (RFC 9180) base mode, X25519-HKDF-SHA256, HKDF-SHA256,
// AES-256-GCM. The header's digest is associated data, so a wrapped key can't move to another object.
import Crypto
import Diagnostics
import Foundation

struct DataKey: Sendable {
  private static let suite = HPKE.Ciphersuite.tidemark
  private static let info = Data("tidemark data key v1".utf8)
  let bytes: [UInt8]

  /// 32 bytes from the system's random numbers.
  init() { bytes = SymmetricKey(size: .bits256).withUnsafeBytes { Array($0) } }
  private init(bytes: [UInt8]) { self.bytes = bytes }

  func wrap(for recipient: RecipientPublicKey, headerDigest: SHA256Digest) throws(TidemarkError) -> WrappedKey {
    do {
      let key = try Curve25519.KeyAgreement.PublicKey(rawRepresentation: recipient.bytes)
      var sender = try HPKE.Sender(recipientKey: key, ciphersuite: Self.suite, info: Self.info)
      let ciphertext = try sender.seal(bytes, authenticating: Data(headerDigest.bytes))
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
  static func unwrap(_ header: SealedHeader, _ identities: [Identity]) throws(TidemarkError) -> DataKey {
    let digest = SHA256Digest.of(header.signedBytes)
    var refusal: TidemarkError?
    for identity in identities {
      for wrapped in header.wrappedKeys where wrapped.recipient == identity.recipient.id {
        do {
          var recipient = try HPKE.Recipient(
            privateKey: identity.key, ciphersuite: suite, info: info, encapsulatedKey: Data(wrapped.encapsulated))
          let key = try recipient.open(wrapped.ciphertext, authenticating: Data(digest.bytes))
          guard key.count == 32 else { throw CryptoKitError.incorrectKeySize }
          return DataKey(bytes: Array(key))
        } catch {
          refusal = TidemarkError(
            .objectDamaged, "the wrapped data key doesn't open", object: header.name, cause: "\(error)")
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
}

extension HPKE.Ciphersuite {
  fileprivate static let tidemark = HPKE.Ciphersuite(
    kem: .Curve25519_HKDF_SHA256, kdf: .HKDF_SHA256, aead: .AES_GCM_256)
}
