"""Prints the rows of one table for COPY: rows.py TABLE ROWS CONTACTS. The same rows each time.

Words are drawn as in a language, few of them often; a part of each row doesn't compress. See dataset.py.
"""
import datetime
import json
import random
import sys

KINDS, SOURCES = ("mail", "call", "letter", "chat"), ("web", "fair", "referral", "import")
BEGIN = datetime.datetime(2024, 1, 1)


class Rows:
    def __init__(self, seed, contacts):
        self.random, self.contacts = random.Random(seed), contacts
        letters = random.Random(1)
        self.words = ["".join(letters.choices("etaoinshrdlucmfwypvbgkqjxz", range(26, 0, -1), k=2 + i % 9))
                      for i in range(6000)]
        total, self.weights = 0.0, []
        for rank in range(1, len(self.words) + 1):
            total += 1 / (rank + 3)
            self.weights.append(total)

    def text(self, count):
        return " ".join(self.random.choices(self.words, cum_weights=self.weights, k=count))

    def uuid(self):
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def moment(self, days):
        return (BEGIN + datetime.timedelta(seconds=self.random.random() * days * 86400)).isoformat(" ")

    def contacts_row(self, number):
        draw = self.random.random
        attributes = {"source": SOURCES[int(draw() * 4)], "consent": draw() < 0.4, "lifetime": round(draw() * 1e4, 2),
                      "tags": self.text(3).split(), "last": self.moment(90), "reference": self.uuid()}
        return (number, self.uuid(), self.text(2).title(), f"{self.text(1)}.{int(draw() * 1e7)}@example.com",
                f"+49 {int(draw() * 1e10)}", int(draw() * 100), round(draw() * 1e7, 2), self.moment(1000),
                json.dumps(attributes), self.text(14), 0)

    def communications_row(self, number):
        draw = self.random.random
        return (number, 1 + int(draw() * self.contacts), KINDS[int(draw() * 4)], self.moment(1000),
                round(draw() * 10, 4), self.text(28), 0)

    def documents_row(self, _):
        return (self.uuid(), 1 + int(self.random.random() * self.contacts),
                f"{self.random.getrandbits(256):064x}", "\\\\x" + self.random.randbytes(1024).hex(), 0)


def main(table, count, contacts):
    rows = Rows(table, contacts)
    make = getattr(rows, f"{table}_row")
    for begin in range(1, count + 1, 1000):
        sys.stdout.write("".join(
            "\t".join(map(str, make(number))) + "\n" for number in range(begin, min(begin + 1000, count + 1))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
