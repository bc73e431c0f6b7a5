// Creation, reading and deletion of files. Each component of a path is opened by openat(2) with O_NOFOLLOW.
// A file appears under its key by link(2), complete and durable, or not at all; link(2) refuses what exists.
import CLinux
import Diagnostics
import Glibc
import SystemSupport

extension DirectoryStore {
  package func create(
    _ key: ObjectKey, _ body: ObjectBody, deadline: Deadline
  ) throws(TidemarkError) -> CreationOutcome {
    try counting(sent: body.byteCount) { () throws(TidemarkError) -> (result: CreationOutcome, received: Int) in
      (try place(key, body), 0)
    }
  }

  package func honoursConditionalCreation(probe: ObjectKey, deadline: Deadline) throws(TidemarkError) -> Bool {
    _ = try create(probe, [], deadline: deadline)
    return try create(probe, [], deadline: deadline) == .exists
  }

  package func read(
    _ key: ObjectKey, range: ByteRange?, deadline: Deadline, buffer: ReceiveBuffer?
  ) throws(TidemarkError) -> [UInt8] {
    try counting { () throws(TidemarkError) -> (result: [UInt8], received: Int) in
      guard let file = try openFile(key) else {
        throw TidemarkError(.objectNotFound, "the object doesn't exist", object: describe(key))
      }
      let size: Int64
      do throws(TidemarkError) { size = try file.byteCount() } catch { throw inStoreTerms(error, key) }
      let bounds: (offset: Int64, count: Int64)
      switch range {
      case nil: bounds = (0, size)
      case .bytes(let offset, let count):
        guard offset >= 0, count >= 0 else { throw TidemarkError(.internalFault, "not a range", object: key.text) }
        bounds = (min(offset, size), min(count, size - min(offset, size)))
      case .suffix(let count):
        guard count >= 0 else { throw TidemarkError(.internalFault, "not a range", object: key.text) }
        bounds = (size - min(count, size), min(count, size))
      }
      guard bounds.count <= objectByteCountMax else {
        throw TidemarkError(
          .storeAnswerInvalid, "the file is larger than any object", object: describe(key), cause: "\(size) bytes")
      }
      var failure: TidemarkError?
      let bytes = [UInt8](unsafeUninitializedCapacity: Int(bounds.count)) { buffer, filled in
        let whole = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<Int(bounds.count)])
        do throws(TidemarkError) { filled = try file.read(into: whole, at: bounds.offset) } catch { failure = error }
      }
      if let failure { throw inStoreTerms(failure, key) }
      guard bytes.count == Int(bounds.count) else {
        throw TidemarkError(.storeAnswerInvalid, "the file shrank while it was read", object: describe(key))
      }
      return (bytes, bytes.count)
    }
  }

  package func information(_ key: ObjectKey, deadline: Deadline) throws(TidemarkError) -> ObjectInformation? {
    try counting { () throws(TidemarkError) -> (result: ObjectInformation?, received: Int) in
      guard let file = try openFile(key) else { return (nil, 0) }
      var status = stat()
      guard fstat(file.descriptor, &status) == 0 else { throw fileError("cannot examine the object", describe(key)) }
      return (
        ObjectInformation(key: key, byteCount: Int64(status.st_size), modified: Int64(status.st_mtim.tv_sec)), 0
      )
    }
  }

  package func delete(_ keys: [ObjectKey], deadline: Deadline) throws(TidemarkError) -> [DeletionFailure] {
    try counting { () throws(TidemarkError) -> (result: [DeletionFailure], received: Int) in
      var failures: [DeletionFailure] = []
      let root = try openRoot()
      // One fsync for each directory, not for each file.
      for (_, group) in Dictionary(grouping: keys, by: { directoryName($0.text) }) {
        try Termination.check()
        guard let directory = try descend(from: root, group[0]) else { continue }
        for key in group where unlinkat(directory.descriptor, key.components.name, 0) != 0 && errno != ENOENT {
          failures.append(DeletionFailure(key: key, reason: String(cString: strerror(errno))))
        }
        guard fsync(directory.descriptor) == 0 else {
          throw fileError("cannot flush the directory", describe(group[0]))
        }
      }
      return (failures, 0)
    }
  }

  // MARK: Paths

  /// The directory of `key`; `nil` when it or one above it doesn't exist.
  private func descend(from root: borrowing DirectoryHandle, _ key: ObjectKey) throws(TidemarkError) -> DirectoryHandle?
  {
    var handle = try duplicate(root)
    for component in key.components.directories {
      let next = clinux_openat(handle.descriptor, String(component), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
      guard next >= 0 else {
        if errno == ENOENT { return nil }
        throw fileError("cannot open the directory of the object", describe(key))
      }
      handle = DirectoryHandle(descriptor: next)
    }
    return handle
  }

  private func duplicate(_ handle: borrowing DirectoryHandle) throws(TidemarkError) -> DirectoryHandle {
    let descriptor = clinux_openat(handle.descriptor, ".", O_RDONLY | O_DIRECTORY, 0)
    guard descriptor >= 0 else { throw fileError("cannot open the directory store", root) }
    return DirectoryHandle(descriptor: descriptor)
  }

  /// `nil` when there is no such file; a directory of that name is no object either.
  private func openFile(_ key: ObjectKey) throws(TidemarkError) -> OpenFile? {
    let root = try openRoot()
    guard let directory = try descend(from: root, key) else { return nil }
    let descriptor = clinux_openat(directory.descriptor, key.components.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)
    guard descriptor >= 0 else {
      if errno == ENOENT { return nil }
      throw fileError("cannot open the object", describe(key))
    }
    let file = OpenFile(owning: descriptor, path: "\(self.root)/\(key)")
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw fileError("cannot examine the object", describe(key)) }
    guard status.st_mode & S_IFMT == S_IFREG else { return nil }
    return file
  }

  private func inStoreTerms(_ error: TidemarkError, _ key: ObjectKey) -> TidemarkError {
    TidemarkError(
      error.code == .localPermission ? .accessDenied : .regionUnreachable, "cannot read the object",
      object: describe(key), cause: error.cause)
  }

  // MARK: Creation

  private func place(_ key: ObjectKey, _ body: ObjectBody) throws(TidemarkError) -> CreationOutcome {
    let doing = "cannot create the object"
    guard body.byteCount <= objectByteCountMax else {
      throw TidemarkError(.internalFault, "the object is larger than any may be", object: key.text)
    }
    guard !key.text.hasPrefix(Self.markerName) else {
      throw TidemarkError(.usage, "the key is reserved for the store itself", object: key.text)
    }
    let root = try openRoot()
    let directory = try makeDirectories(from: root, key)
    let name = key.components.name
    // What exists needs no second copy of its bytes.
    var status = stat()
    if fstatat(directory.descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0 {
      return try settle(directory, key, status)
    }

    let incoming = clinux_openat(root.descriptor, Self.markerName, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
    guard incoming >= 0 else { throw fileError(doing, describe(key)) }
    let spool = DirectoryHandle(descriptor: incoming)
    let temporary = "\(getpid())-\(UInt64.random(in: 0...UInt64.max)).tmp"
    let descriptor = clinux_openat(spool.descriptor, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw fileError(doing, describe(key)) }
    defer { unlinkat(spool.descriptor, temporary, 0) }
    try fill(descriptor, body, key, owner: foreignOwner(of: directory))
    CrashPoint.reach("directory-store.before-link")
    if linkat(spool.descriptor, temporary, directory.descriptor, name, 0) != 0 {
      let number = errno
      if number == EEXIST, fstatat(directory.descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0 {
        return try settle(directory, key, status)
      }
      throw fileError(doing, describe(key), number)
    }
    guard fsync(directory.descriptor) == 0 else { throw fileError(doing, describe(key)) }
    return .created
  }

  /// For what is already there: whoever linked it may not have flushed the directory yet.
  private func settle(
    _ directory: borrowing DirectoryHandle, _ key: ObjectKey, _ status: stat
  ) throws(TidemarkError) -> CreationOutcome {
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw TidemarkError(
        .pathUnsafe, "cannot create the object", object: describe(key), cause: "something that is no file is there")
    }
    guard fsync(directory.descriptor) == 0 else { throw fileError("cannot create the object", describe(key)) }
    return .exists
  }

  /// Who owns the directory, when root makes something there and it isn't root's: what is made becomes theirs, since the
  /// archive command of another user must go on reading and writing there.
  private func foreignOwner(of directory: borrowing DirectoryHandle) -> (user: uid_t, group: gid_t)? {
    var status = stat()
    guard geteuid() == 0, fstat(directory.descriptor, &status) == 0, status.st_uid != 0 else { return nil }
    return (status.st_uid, status.st_gid)
  }

  /// Gives what is open to `owner`, if it is root's.
  private func give(_ descriptor: Int32, to owner: (user: uid_t, group: gid_t)?) -> Bool {
    var status = stat()
    // Where root is mapped to somebody else, as on NFS, there is nothing to give.
    guard let owner, fstat(descriptor, &status) == 0, status.st_uid == 0 else { return true }
    return fchown(descriptor, owner.user, owner.group) == 0
  }

  private func fill(
    _ descriptor: Int32, _ body: ObjectBody, _ key: ObjectKey, owner: (user: uid_t, group: gid_t)?
  ) throws(TidemarkError) {
    // Errors are told in the store's terms: a full NAS is the region's trouble, not this host's.
    var number: Int32 = 0
    for piece in body.pieces where number == 0 { number = Self.append(piece, to: descriptor) }
    if number == 0, !give(descriptor, to: owner) || fsync(descriptor) != 0 { number = errno }
    let closing = close(descriptor) == 0 ? 0 : errno
    if number != 0 || closing != 0 {
      throw fileError("cannot create the object", describe(key), number != 0 ? number : closing)
    }
  }

  /// Writes all of `bytes`. Returns 0, or the error's number.
  private static func append(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
    bytes.withUnsafeBytes { buffer in
      var offset = 0
      while offset < buffer.count {
        let count = write(descriptor, buffer.baseAddress! + offset, buffer.count - offset)  // not empty here
        if count < 0 {
          if errno == EINTR { continue }
          return errno
        }
        offset += count
      }
      return 0
    }
  }

  /// Opens the key's directory, making what is missing. Each directory that this process sees for the first time is
  /// made durable in its parent, also when another process made it.
  private func makeDirectories(from root: borrowing DirectoryHandle, _ key: ObjectKey) throws(TidemarkError)
    -> DirectoryHandle
  {
    var handle = try duplicate(root)
    var path = ""
    for component in key.components.directories {
      path += "/\(component)"
      let name = String(component)
      var next = clinux_openat(handle.descriptor, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
      if next < 0, errno == ENOENT {
        forgetDurable(path)
        if mkdirat(handle.descriptor, name, 0o700) != 0, errno != EEXIST {
          throw fileError("cannot make the directory of the object", describe(key))
        }
        next = clinux_openat(handle.descriptor, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
      }
      guard next >= 0 else { throw fileError("cannot open the directory of the object", describe(key)) }
      let child = DirectoryHandle(descriptor: next)
      // Also one that a killed run of root left.
      guard give(child.descriptor, to: foreignOwner(of: handle)) else {
        throw fileError("cannot give the directory of the object to its parent's owner", describe(key))
      }
      if !isDurable(path) {
        guard fsync(handle.descriptor) == 0 else {
          throw fileError("cannot flush the directory of the object", describe(key))
        }
        rememberDurable(path)
      }
      handle = child
    }
    return handle
  }
}
