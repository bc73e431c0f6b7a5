// The part of `check` that tries what the credentials may do: a writer's should create and read, nothing else.
import BackupRepository
import Diagnostics
import ObjectStorage
import SystemSupport

extension CheckCommand {
  /// Notes what these credentials could destroy in `region`: a finding where the configuration says `create-only`,
  /// otherwise a remark.
  func checkPermissions(
    _ repository: Repository, _ region: BackupRepository.Region, isCreateOnly: Bool,
    _ note: (String, String, String, String, String?) -> Void
  ) {
    let probe = region.key(repository.layout.probe("\(UInt64.random(in: 0...UInt64.max))"))
    let permissions: StorePermissions
    do throws(TidemarkError) {
      // Not by `request`: a refusal is what is hoped for, and says nothing about the region's health.
      permissions = try region.store.permissions(probe: probe, deadline: .after(.seconds(30)))
    } catch {
      note(isCreateOnly ? "finding" : "remark", "permissions", region.name, error.description, error.next)
      return
    }
    var powers: [String] = []
    if permissions.replacement == .destroys { powers.append("replace") }
    if permissions.mayDelete { powers.append("delete") }
    guard !powers.isEmpty else {
      let versions = permissions.replacement == .hides
      note(
        versions ? "remark" : "ok", "permissions", region.name,
        versions
          ? "these credentials can't delete; what they put over an object hides it, and its version stays"
          : "these credentials can neither replace nor delete objects", nil)
      return
    }
    let what = powers.joined(separator: " and ")
    note(
      isCreateOnly ? "finding" : "remark", "permissions", region.name,
      "these credentials can \(what) objects, and so can whoever steals them",
      region.store is DirectoryStore
        ? "keep one copy where this host can't delete: a bucket with a policy"
        : "apply the writer's policy of policies/s3"
    )
  }
}
