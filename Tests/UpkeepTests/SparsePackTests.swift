// Which packs a backup gives up: by what is alive of them, sparsest first, within a budget.
import BaseBackup
import Testing

@Suite("Sparse packs") struct SparsePackTests {
  /// A pack of `stored` MiB, that compressed from `plaintext` MiB, of which `alive` MiB are alive.
  private func pack(_ number: Int, alive: Int64, of plaintext: Int64?, stored: Int64 = 16) -> SparsePacks.Candidate {
    SparsePacks.Candidate(
      id: PackID(label: 1, number: number), aliveByteCount: alive << 20, plaintextByteCount: plaintext.map { $0 << 20 },
      storedByteCount: stored << 20)
  }

  private func chosen(_ candidates: [SparsePacks.Candidate], budget: Int64 = 1 << 40) -> [Int] {
    SparsePacks.choose(candidates, budget: budget).map(\.number).sorted()
  }

  @Test("a pack is given up when less than a quarter of it is alive") func threshold() {
    #expect(chosen([pack(1, alive: 12, of: 48), pack(2, alive: 11, of: 48), pack(3, alive: 0, of: 48)]) == [2, 3])
    #expect(chosen([pack(1, alive: 48, of: 48)]).isEmpty)
  }

  @Test("a small pack is measured by its own size, not by that of a full one") func small() {
    let candidate = SparsePacks.Candidate(
      id: PackID(label: 1, number: 1), aliveByteCount: 9000, plaintextByteCount: 9000, storedByteCount: 3000)
    #expect(chosen([candidate]).isEmpty)
    #expect(chosen([pack(1, alive: 1, of: 1, stored: 1), pack(2, alive: 1, of: 5, stored: 1)]) == [2])
  }

  @Test("a pack whose size nobody noted counts as if nothing in it were compressed") func unknownSize() {
    #expect(chosen([pack(1, alive: 5, of: nil), pack(2, alive: 3, of: nil)]) == [2])
  }

  @Test("one backup gives up no more than its budget, the sparsest first") func budget() {
    // Storing them anew takes 2, 1 and 3 MiB.
    let candidates = [pack(1, alive: 8, of: 64), pack(2, alive: 4, of: 64), pack(3, alive: 12, of: 64)]
    #expect(chosen(candidates, budget: 6 << 20) == [1, 2, 3])
    #expect(chosen(candidates, budget: 5 << 20) == [1, 2])
    #expect(chosen(candidates, budget: 2 << 20) == [2])
    #expect(chosen(candidates, budget: 0).isEmpty)
    #expect(SparsePacks.budget(storedByteCount: 0) == 64 << 20)
    #expect(SparsePacks.budget(storedByteCount: 1 << 40) == 1 << 36)
  }
}
