"""`python -m access.new_certificate FOLDER` makes a key and a certificate for a control process.

They are control.key and control.crt in FOLDER, for the owner alone. Files that are there stay. The
path of the certificate is printed. docs/operating.md says how to change to them without a stop.
"""

import argparse
import sys
from pathlib import Path

from access.peer_tls import PeerError, make_certificate
from host.files import keep_files_private


def main() -> int:
    """Make the files; return the exit code: 0, or 1 when files in the folder are damaged."""
    parser = argparse.ArgumentParser(prog="python -m access.new_certificate", description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    keep_files_private()
    try:
        files = make_certificate(options.folder)
    except PeerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{files.certificate}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
