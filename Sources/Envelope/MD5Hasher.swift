// MD5 of an object while it is sealed, since stores want it with the body. No check of ours rests on it.
import CLibcrypto
import Diagnostics

package struct MD5Hasher: ~Copyable {
  private let context: OpaquePointer

  package init() throws(TidemarkError) {
    guard let context = EVP_MD_CTX_new() else { throw cryptoError("cannot make a digest context") }
    guard EVP_DigestInit_ex(context, EVP_md5(), nil) == 1 else {
      EVP_MD_CTX_free(context)
      throw cryptoError("cannot digest")
    }
    self.context = context
  }

  deinit { EVP_MD_CTX_free(context) }

  package func update(_ bytes: [UInt8]) throws(TidemarkError) {
    guard bytes.withUnsafeBytes({ EVP_DigestUpdate(context, $0.baseAddress, $0.count) }) == 1 else {
      throw cryptoError("cannot digest")
    }
  }

  package consuming func finish() throws(TidemarkError) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 16)
    guard EVP_DigestFinal_ex(context, &digest, nil) == 1 else { throw cryptoError("cannot digest") }
    return digest
  }
}
