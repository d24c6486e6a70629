"""provisional"""


class PlatformReader:
    pass
