// The roles of policies/: what the least role of PostgreSQL and each role at the stores can do, and what they can't.
import Foundation
import SystemSupport
import TestSupport
import Testing

@Suite("Roles", .serialized)
struct RoleTests {
  private static let gateway = Result { try CephGateway(users: ["writer", "reader", "pruner"]) }
  private static let policies = "\(TestTools.packageRoot)/policies"

  @Test("the role of policies/postgres suffices for every command", arguments: PostgresVersion.allAvailable)
  func postgresRole(_ version: PostgresVersion) throws {
    let installation = try Installation(version, usesS3: false)
    let server = installation.server
    let role = try String(contentsOfFile: "\(Self.policies)/postgres/role.sql", encoding: .utf8)
    try server.psql(role)
    // Repeating it is harmless.
    try server.psql(role)
    let yaml = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    try yaml.replacing("user=postgres", with: "user=tidemark").write(
      toFile: installation.configuration, atomically: false, encoding: .utf8)
    try server.psql("CREATE TABLE secrets AS SELECT generate_series(1, 1000) AS id")

    let checked = try installation.json(["check"])
    let findings = (checked["checks"] as? [[String: Any]] ?? []).filter { $0["status"] as? String == "finding" }
    #expect(findings.isEmpty, "\(findings)")
    let backup = try installation.json(["backup"])
    #expect(backup["remarks"] as? [String] == [])
    let label = try #require(backup["label"] as? String)
    let shown = try installation.json(["show", label, "--settings"])
    let settings = try #require(shown["settings"] as? [[String: Any]])
    // Only members of pg_read_all_settings see these.
    #expect(settings.contains { $0["name"] as? String == "data_directory" })
    try installation.archiveWAL()
    _ = try installation.json(["list"])
    _ = try installation.json(["sync"])
    _ = try installation.json(["backup"])
    try installation.restore("restored", []) { query in
      let count = try query("SELECT count(*) FROM secrets")
      #expect(count == "1000")
    }
    #expect(!server.log.contains("permission denied"), "\(server.log)")
    for forbidden in [
      "SELECT * FROM secrets", "CREATE TABLE public.mine (id int)", "SELECT pg_read_file('postgresql.conf')",
      "ALTER SYSTEM SET archive_command = 'false'", "CREATE ROLE other", "SELECT pg_promote()",
    ] {
      #expect(throws: (any Error).self, "\(forbidden)") { try server.psql(forbidden, user: "tidemark") }
    }
  }

  /// A cluster whose two regions are buckets of Ceph's gateway, used with one role's credentials at a time.
  private func cluster(_ buckets: [String], createOnly: Bool) throws -> (
    installation: Installation, as: (String) throws -> Void
  ) {
    let gateway = try Self.gateway.get()
    let installation = try Installation(.v15, usesS3: false, degradeAfter: "2s")
    let root = installation.root
    let yaml = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    func become(_ user: String) throws {
      let text =
        "[default]\naws_access_key_id = \(user)\naws_secret_access_key = \(CephGateway.secret(of: user))\n"
      try DurableFile.write(Array(text.utf8), to: "\(root)/store.credentials")
      try PostgresServer.give("\(root)/store.credentials")
    }
    var changed = yaml.replacing("repository:\n", with: "repository:\n  create-only: \(createOnly)\n")
    for (name, bucket) in zip(["west", "east"], buckets) {
      changed = changed.replacing(
        "{name: \(name), endpoint: \"file://\(root)/\(name)\"}",
        with: "{name: \(name), endpoint: \"\(gateway.endpoint)\", bucket: \(bucket), region: us-east-1, "
          + "credentials-file: \(root)/store.credentials}")
    }
    try changed.write(toFile: installation.configuration, atomically: false, encoding: .utf8)
    try become("writer")
    let made = try installation.run(["init"])
    try #require(made.succeeded, "\(made.errorText)")
    return (installation, become)
  }

  @Test("the writer creates and reads, the reader restores, and neither replaces or deletes; the lock holds for all")
  func storeRoles() throws {
    let gateway = try Self.gateway.get()
    try gateway.createBucket("crm-west", prefix: "backups/tidemark", lockDays: 1)
    try gateway.createBucket("crm-east", prefix: "backups/tidemark")
    let (installation, become) = try cluster(["crm-west", "crm-east"], createOnly: true)
    let server = installation.server
    try server.psql("CREATE TABLE ledger AS SELECT generate_series(1, 1000) AS id")

    let checked = try installation.json(["check"])
    let permissions = (checked["checks"] as? [[String: Any]] ?? []).filter { $0["name"] as? String == "permissions" }
    #expect(permissions.count == 2)
    // What is put over an object hides its version; it can't be told before a store enforces the condition.
    #expect(permissions.allSatisfy { $0["status"] as? String != "finding" }, "\(permissions)")
    _ = try installation.json(["backup"])
    try installation.archiveWAL()

    try become("reader")
    try installation.restore("restored", []) { query in
      let count = try query("SELECT count(*) FROM ledger")
      #expect(count == "1000")
    }
    let refused = try installation.run(["backup"])
    #expect(!refused.succeeded)
    #expect(refused.errorText.contains("access-denied"), "\(refused.errorText)")

    // The pruner deletes what the policy doesn't keep, and where Object Lock is on that hides it.
    try become("writer")
    let labels = try (0..<2).map { _ in try #require(try installation.json(["backup"])["label"] as? String) }
    let configuration = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    try (configuration + "retention: {count: 1, newest: 1, grace: 0s}\n").write(
      toFile: installation.configuration, atomically: false, encoding: .utf8)
    try become("pruner")
    _ = try installation.json(["expire"])
    let listed = try installation.json(["list"])
    let lineage = try #require((listed["lineages"] as? [[String: Any]])?.first)
    #expect((lineage["backups"] as? [[String: Any]])?.map { $0["label"] as? String } == [labels[1]])
    try become("writer")
    try (configuration + "retention: {count: 1, newest: 1, grace: 0s}\n").write(
      toFile: installation.configuration, atomically: false, encoding: .utf8)
    _ = try installation.json(["backup"])
    let denied = try installation.run(["expire"])
    #expect(!denied.succeeded, "\(denied.outputText)")
    #expect((try installation.json(["list"])["lineages"] as? [[String: Any]])?.isEmpty == false)

    // Each object was created once, so the oldest versions are the repository, whatever was put over them or deleted.
    let profiles = ["reader", CephGateway.owner].map {
      "[\($0)]\naws_access_key_id = \($0)\naws_secret_access_key = \(CephGateway.secret(of: $0))\n"
    }
    try DurableFile.write(Array(profiles.joined().utf8), to: "\(installation.root)/profiles")
    try gateway.python(
      [
        "\(Self.policies)/s3/first-versions", "--from", "crm-west", "--from-profile", "reader", "--to", "crm-recovered",
        "--to-profile", CephGateway.owner, "--create", "--prefix", "backups/tidemark", "--endpoint", gateway.endpoint,
      ], environment: ["AWS_SHARED_CREDENTIALS_FILE": "\(installation.root)/profiles"])
    let old = try String(contentsOfFile: installation.configuration, encoding: .utf8)
    try old.replacing("bucket: crm-west", with: "bucket: crm-recovered").write(
      toFile: installation.configuration, atomically: false, encoding: .utf8)
    try become(CephGateway.owner)
    try installation.restore("recovered", ["--backup", labels[0], "--to-backup-end", "--from-region", "west"]) {
      query in
      let count = try query("SELECT count(*) FROM ledger")
      #expect(count == "1000")
    }

    // Even the bucket's owner can't delete a version of the region with Object Lock; without it, it can.
    let attempt = """
      from boto3 import client
      from botocore.exceptions import ClientError
      from sys import argv
      s3 = client("s3", endpoint_url=argv[1], region_name="us-east-1")
      version = s3.list_object_versions(Bucket=argv[2], MaxKeys=1)["Versions"][0]
      try:
          s3.delete_object(Bucket=argv[2], Key=version["Key"], VersionId=version["VersionId"])
          print("deleted")
      except ClientError as error:
          print(error.response["Error"]["Code"])
      """
    func deletion(_ bucket: String, _ user: String) throws -> String {
      try gateway.python(["-c", attempt, gateway.endpoint, bucket], as: user)
        .trimmingCharacters(in: .whitespacesAndNewlines)
    }
    let ofOwner = try deletion("crm-west", CephGateway.owner)
    #expect(ofOwner == "AccessDenied")
    let ofOwnerUnlocked = try deletion("crm-east", CephGateway.owner)
    #expect(ofOwnerUnlocked == "deleted")
  }

  @Test("the documents of the roles do as policies of users, too")
  func userPolicies() throws {
    let gateway = try Self.gateway.get()
    let script = """
      from boto3 import client as boto3_client
      from botocore.exceptions import ClientError
      from sys import argv
      endpoint, policies = argv[1:]
      def client(service, user):
          return boto3_client(service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=user,
                              aws_secret_access_key=user + "-secret")
      client("s3", "owner").create_bucket(Bucket="users")
      for role in ("writer", "reader", "pruner"):
          document = open(f"{policies}/s3/{role}.json").read().replace("BUCKET", "users").replace("PREFIX", "p")
          client("iam", "owner").put_user_policy(UserName=role, PolicyName="tidemark", PolicyDocument=document)
      def attempt(what, user, **more):
          try:
              getattr(client("s3", user), what)(Bucket="users", **more)
              print(user, what, "done")
          except ClientError as error:
              print(user, what, error.response["Error"]["Code"])
      for user in ("writer", "reader", "pruner"):
          attempt("put_object", user, Key="p/object", Body=b"1")
          attempt("get_object", user, Key="p/object")
          attempt("get_object", user, Key="p/absent")
          attempt("list_objects_v2", user, Prefix="p/")
          attempt("delete_object", user, Key="p/object")
      """
    let output = try gateway.python(["-c", script, gateway.endpoint, Self.policies])
    #expect(
      output == """
        writer put_object done
        writer get_object done
        writer get_object NoSuchKey
        writer list_objects_v2 done
        writer delete_object AccessDenied
        reader put_object AccessDenied
        reader get_object done
        reader get_object NoSuchKey
        reader list_objects_v2 done
        reader delete_object AccessDenied
        pruner put_object AccessDenied
        pruner get_object done
        pruner get_object NoSuchKey
        pruner list_objects_v2 done
        pruner delete_object done

        """)
  }

  /// The condition itself can't be tried here: see policies/s3/README.md. When this fails because the gateway has learned
  /// it, the last attempt should become a refusal.
  @Test(
    "under the conditional documents the writer creates as before, and this gateway takes the condition for nothing")
  func conditionalPolicies() throws {
    let gateway = try Self.gateway.get()
    try gateway.createBucket("conditional", prefix: "p", isConditional: true)
    let script = """
      from boto3 import client as boto3_client
      from botocore.exceptions import ClientError
      from sys import argv
      endpoint, policies = argv[1:]
      def client(service, user):
          return boto3_client(service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=user,
                              aws_secret_access_key=user + "-secret")
      client("s3", "owner").create_bucket(Bucket="writers")
      document = open(f"{policies}/s3/writer-conditional.json").read().replace("BUCKET", "writers").replace("PREFIX", "p")
      client("iam", "owner").put_user_policy(UserName="writer", PolicyName="tidemark", PolicyDocument=document)
      def attempt(what, user, **more):
          try:
              getattr(client("s3", user), what)(Bucket=bucket, **more)
              print(bucket, user, what, "done")
          except ClientError as error:
              print(bucket, user, what, error.response["Error"]["Code"])
      for bucket in ("conditional", "writers"):
          attempt("put_object", "writer", Key="p/object", Body=b"1", IfNoneMatch="*")
          attempt("get_object", "writer", Key="p/object")
          attempt("list_objects_v2", "writer", Prefix="p/")
          attempt("delete_object", "writer", Key="p/object")
          attempt("put_object", "writer", Key="elsewhere", Body=b"1", IfNoneMatch="*")
          attempt("put_object", "reader", Key="p/other", Body=b"1", IfNoneMatch="*")
          attempt("put_object", "writer", Key="p/object", Body=b"2")
      """
    let output = try gateway.python(["-c", script, gateway.endpoint, Self.policies])
    let expected = ["conditional", "writers"].map { bucket in
      """
      \(bucket) writer put_object done
      \(bucket) writer get_object done
      \(bucket) writer list_objects_v2 done
      \(bucket) writer delete_object AccessDenied
      \(bucket) writer put_object AccessDenied
      \(bucket) reader put_object AccessDenied
      \(bucket) writer put_object done

      """
    }
    #expect(output == expected.joined())
  }

  @Test("credentials that can destroy are a finding where create-only is expected, and a remark where it isn't")
  func powerfulCredentials() throws {
    let gateway = try Self.gateway.get()
    for bucket in ["plain-west", "plain-east"] {
      try gateway.python(
        [
          "-c", "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1]).create_bucket(Bucket=sys.argv[2])",
          gateway.endpoint, bucket,
        ], as: "writer")
    }
    for isExpected in [true, false] {
      let (installation, _) = try cluster(["plain-west", "plain-east"], createOnly: isExpected)
      let outcome = try installation.run(["--json", "check"])
      #expect(outcome.ending == .exited(isExpected ? 1 : 0), "\(outcome.outputText)")
      let document = try JSONSerialization.jsonObject(with: Data(outcome.output)) as? [String: Any]
      let permissions = (document?["checks"] as? [[String: Any]] ?? []).filter {
        $0["name"] as? String == "permissions"
      }
      #expect(permissions.count == 2)
      for check in permissions {
        #expect(check["status"] as? String == (isExpected ? "finding" : "remark"))
        #expect((check["detail"] as? String ?? "").contains("replace and delete"))
      }
    }
  }
}
