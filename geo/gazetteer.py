"""provisional"""


class Gazetteer:
    @classmethod
    def from_pack(cls, pack):
        return cls()

    def place(self, address, text):
        return None
