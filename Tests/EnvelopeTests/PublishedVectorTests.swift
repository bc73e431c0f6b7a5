// The primitives against vectors that others published.
import Diagnostics
import Testing

@testable import Envelope

@Suite("Published vectors")
struct PublishedVectorTests {
  @Test(
    "SHA-256 as in FIPS 180-4's examples, at once and block by block",
    arguments: [
      ("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
      ("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
      (
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
      ),
      ("a", 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ])
  func sha256(text: String, count: Int, expected: String) throws {
    let message = [[UInt8]](repeating: Array(text.utf8), count: count).flatMap { $0 }
    #expect(SHA256Digest.of(message).hexadecimal == expected)
    var hasher = try SHA256Hasher()
    for length in [32, 16, 32] {
      var output: [UInt8] = [7]
      try message.withUnsafeBytes { try hasher.appendDigest(of: $0, prefix: length, to: &output) }
      #expect(output == [7] + bytes(hexadecimal: expected).prefix(length))
    }
  }

  /// McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test cases 13 to 16.
  struct GCMCase: Sendable {
    var key = String(repeating: "00", count: 32)
    var nonce = String(repeating: "00", count: 12)
    var plaintext = ""
    var associated = ""
    var ciphertext = ""
    var tag: String
  }
  static let longKey = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
  static let longPlaintext =
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    + "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
  static let longCiphertext =
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    + "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
  static let cases = [
    GCMCase(tag: "530f8afbc74536b9a963b4f1c4cb738b"),
    GCMCase(
      plaintext: String(repeating: "00", count: 16), ciphertext: "cea7403d4d606b6e074ec5d3baf39d18",
      tag: "d0d1c8a799996bf0265b98b5d48ab919"),
    GCMCase(
      key: longKey, nonce: "cafebabefacedbaddecaf888", plaintext: longPlaintext + "1aafd255",
      ciphertext: longCiphertext + "898015ad", tag: "b094dac5d93471bdec1a502270e3cc6c"),
    GCMCase(
      key: longKey, nonce: "cafebabefacedbaddecaf888", plaintext: longPlaintext,
      associated: "feedfacedeadbeeffeedfacedeadbeefabaddad2", ciphertext: longCiphertext,
      tag: "76fc6ece0f4e1768cddf8853bb2d551b"),
  ]

  @Test("AES-256-GCM as in test cases 13 to 16, and no plaintext when the tag doesn't fit", arguments: cases)
  func gcm(vector: GCMCase) throws {
    let cipher = try FrameCipher()
    let key = DataKey(bytes: bytes(hexadecimal: vector.key))
    let nonce = bytes(hexadecimal: vector.nonce)
    let associated = bytes(hexadecimal: vector.associated)
    let plaintext = bytes(hexadecimal: vector.plaintext)
    var sealed = [UInt8](repeating: 0, count: plaintext.count + FrameCipher.tagByteCount)
    try plaintext.withUnsafeBytes { plaintext in
      try sealed.withUnsafeMutableBytes {
        try cipher.seal(key, nonce: nonce, associated: associated, plaintext, into: $0)
      }
    }
    let text = Array(sealed.prefix(plaintext.count))
    var tag = Array(sealed.suffix(FrameCipher.tagByteCount))
    #expect(text == bytes(hexadecimal: vector.ciphertext))
    #expect(tag == bytes(hexadecimal: vector.tag))

    func open(_ tag: [UInt8]) throws -> (fits: Bool, output: [UInt8]) {
      var output = [UInt8](repeating: 9, count: text.count)
      let fits = try output.withUnsafeMutableBytes { output in
        try text.withUnsafeBytes { text in
          try tag.withUnsafeBytes { tag in
            try cipher.open(key, nonce: nonce, associated: associated, text, tag: tag, into: output)
          }
        }
      }
      return (fits, output)
    }
    let opened = try open(tag)
    #expect(opened.fits && opened.output == plaintext)
    tag[15] ^= 1
    let refused = try open(tag)
    #expect(!refused.fits && refused.output.allSatisfy { $0 == 0 })
  }

  @Test(
    "a writer key signs as Ed25519 does in RFC 8032, section 7.1",
    arguments: [
      (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
          + "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
      ),
      (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
          + "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
      ),
    ])
  func signatures(secret: String, publicKey: String, message: String, signature: String) throws {
    let writer = try WriterKey(secretText: KeyText.encode(WriterKey.prefix, bytes(hexadecimal: secret)))
    #expect(writer.publicKey.bytes == bytes(hexadecimal: publicKey))
    #expect(writer.publicKey.verifies(bytes(hexadecimal: signature), bytes(hexadecimal: message)))
    // The library salts its nonces, so signing again gives another signature that is as good.
    let again = try writer.sign(bytes(hexadecimal: message))
    #expect(writer.publicKey.verifies(again, bytes(hexadecimal: message)))
    #expect(!writer.publicKey.verifies(again, bytes(hexadecimal: message + "00")))
  }

  /// From RFC 9180's test vectors, https://github.com/cfrg/draft-irtf-cfrg-hpke/blob/master/test-vectors.json: mode 0,
  /// KEM 0x0020, KDF 0x0001, AEAD 0x0002, the first encryption.
  @Test("a data key is unwrapped as in RFC 9180, and not with other associated data or info")
  func hpke() throws {
    let secret = bytes(hexadecimal: "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d")
    let identity = try Identity(secretText: KeyText.encode(Identity.prefix, secret))
    #expect(
      identity.recipient.bytes
        == bytes(hexadecimal: "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c"))
    let info = bytes(hexadecimal: "4f6465206f6e2061204772656369616e2055726e")
    let associated = bytes(hexadecimal: "436f756e742d30")
    func open(_ info: [UInt8], _ associated: [UInt8]) throws -> [UInt8] {
      Array(
        try DataKey.open(
          bytes(
            hexadecimal: "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be99319"
              + "80a41de125a925cdad859d5b7a"),
          encapsulated: bytes(hexadecimal: "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256"),
          with: identity, info: info, associated: associated))
    }
    #expect(try open(info, associated) == Array("Beauty is truth, truth beauty".utf8))
    #expect(throws: (any Error).self) { try open(info, associated + [0]) }
    #expect(throws: (any Error).self) { try open(info + [0], associated) }
  }
}
