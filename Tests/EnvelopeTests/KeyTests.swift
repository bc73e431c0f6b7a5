// Keys' texts: stable, safe against typing errors and mix-ups, and no secret shown.
import Diagnostics
import Testing

@testable import Envelope

@Suite("Keys and their texts")
struct KeyTests {
  /// RFC 8032's first secret; the other values by HKDF, X25519, SHA-256 and base32 of Python's library.
  static let seed = bytes(hexadecimal: "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")

  @Test("every kind of key comes back from its text")
  func roundTrips() throws {
    let identity = Identity()
    let writer = try WriterKey()
    #expect(try RecipientPublicKey(text: identity.recipient.description) == identity.recipient)
    #expect(try WriterPublicKey(text: writer.publicKey.description) == writer.publicKey)
    #expect(try Identity(secretText: identity.secretText).recipient == identity.recipient)
    let again = try WriterKey(secretText: writer.secretText)
    #expect(again.publicKey == writer.publicKey)
    #expect(again.ownRecipient == writer.ownRecipient)
  }

  @Test("texts, ids and the writer's own recipient stay what they are for ever")
  func stable() throws {
    let writer = try WriterKey(secretText: KeyText.encode(WriterKey.prefix, Self.seed))
    #expect(writer.secretText == "tidemark-writer-secret-tvq3dhpp7vngbouejl2jf3bmyrcetrljpmzgsglqhowaghfop5qeedfzky")
    #expect(
      writer.publicKey.description == "tidemark-writer-25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenpc6gjvy")
    #expect(writer.publicKey.id.description == "21fe31dfa154a261")
    #expect(
      writer.ownRecipient.description == "tidemark-recipient-hgeibixopcesnzshufo6bquflz5re4zlcwrvkxu3adopjau5jv4kfy43zm"
    )
  }

  @Test("any single mistyped, missing or additional character is found")
  func typingErrors() throws {
    let text = Identity().recipient.description
    let characters = Array(text.utf8)
    let prefixCount = RecipientPublicKey.prefix.utf8.count
    for position in prefixCount..<characters.count {
      for replacement in "a7b1A ".utf8 where replacement != characters[position] {
        var mistyped = characters
        mistyped[position] = replacement
        #expect(code { _ = try RecipientPublicKey(text: String(decoding: mistyped, as: UTF8.self)) } == .keyFileInvalid)
      }
      var shorter = characters
      shorter.remove(at: position)
      #expect(code { _ = try RecipientPublicKey(text: String(decoding: shorter, as: UTF8.self)) } == .keyFileInvalid)
    }
    for addition in ["a", "=", " ", "aaaaaaaa"] {
      #expect(code { _ = try RecipientPublicKey(text: text + addition) } == .keyFileInvalid)
    }
    for nonsense in ["", "tidemark-recipient-", "tidemark", "AGE-SECRET-KEY-1"] {
      #expect(code { _ = try RecipientPublicKey(text: nonsense) } == .keyFileInvalid)
    }
  }

  @Test("a key of the wrong type is refused by its name, and no secret is repeated")
  func wrongType() throws {
    let identity = Identity()
    let writer = try WriterKey()
    func refusal(_ body: () throws -> Void) -> String {
      do {
        try body()
        return "accepted"
      } catch { return TidemarkError.wrapping(error).operatorText }
    }
    let secretAsPublic = refusal { _ = try WriterPublicKey(text: writer.secretText) }
    #expect(secretAsPublic.contains("expected a writer's public key, found a writer's secret"))
    #expect(!secretAsPublic.contains(writer.secretText.suffix(20)))
    let identityAsRecipient = refusal { _ = try RecipientPublicKey(text: identity.secretText) }
    #expect(identityAsRecipient.contains("expected a recipient's public key, found an identity's secret"))
    #expect(!identityAsRecipient.contains(identity.secretText.suffix(20)))
    #expect(
      refusal { _ = try RecipientPublicKey(text: writer.publicKey.description) }.contains("found a writer's public key")
    )
    #expect(refusal { _ = try WriterKey(secretText: identity.secretText) }.contains("found an identity's secret"))
    #expect(refusal { _ = try Identity(secretText: writer.secretText) }.contains("found a writer's secret"))
  }

  @Test("the bytes of one type are no key of another: the checksum covers the prefix")
  func prefixIsChecked() throws {
    let text = Identity().recipient.description
    let relabelled = WriterPublicKey.prefix + text.dropFirst(RecipientPublicKey.prefix.count)
    #expect(code { _ = try WriterPublicKey(text: relabelled) } == .keyFileInvalid)
  }

  /// The points of small order, https://cr.yp.to/ecdh.html.
  @Test(
    "a recipient with which everybody agrees on the same secret is refused",
    arguments: [
      String(repeating: "00", count: 32), "01" + String(repeating: "00", count: 31),
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
      "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ])
  func smallOrder(point: String) {
    let text = KeyText.encode(RecipientPublicKey.prefix, bytes(hexadecimal: point))
    let error = #expect(throws: TidemarkError.self) { try RecipientPublicKey(text: text) }
    #expect(error?.summary.contains("worthless") == true)
  }

  @Test("secrets don't show in descriptions, reflections or dumps")
  func redaction() throws {
    let identity = Identity()
    let writer = try WriterKey()
    var dumped = "\(identity) \(writer) \(String(reflecting: identity)) \(String(reflecting: writer))"
    dump(identity, to: &dumped)
    dump(writer, to: &dumped)
    for secret in [identity.secretText, writer.secretText] {
      let characters = secret.split(separator: "-").last.map(String.init) ?? secret
      #expect(!dumped.contains(characters))
    }
    for secret in [Array(identity.key.rawRepresentation), try Self.rawBytes(writer)] {
      #expect(!dumped.contains(hexadecimalText(secret)))
      #expect(!dumped.contains(secret.prefix(4).map(String.init).joined(separator: ", ")))
    }
    #expect(dumped.contains(identity.recipient.id.description))
  }

  private static func rawBytes(_ writer: WriterKey) throws -> [UInt8] {
    try KeyText.decode(writer.secretText, prefix: WriterKey.prefix, what: "a secret")
  }
}
