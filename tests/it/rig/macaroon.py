"""Macaroons as an independent library sees them, pymacaroons.

    macaroon.py mint SECRET LOCATION CLAIMS         mints a token of ours, the claims as JSON; prints it
    macaroon.py verify SECRET TOKEN [CAVEAT]...     verifies a token, adds caveats to it; prints what was in it and the new token
"""

import hashlib
import hmac
import json
import sys

from pymacaroons import MACAROON_V2, Macaroon, Verifier

PREFIX = "mc_v1_"


def root_key(secret):
    return hmac.new(secret.encode(), b"talos/macaroon/v1/root-key", hashlib.sha256).digest()


def mint(secret, location, claims):
    identifier = json.dumps({"jti": json.loads(claims)["jti"]}, separators=(",", ":"))
    macaroon = Macaroon(location=location, identifier=identifier, key=root_key(secret), version=MACAROON_V2)
    macaroon.add_first_party_caveat(claims)
    return PREFIX + macaroon.serialize()


def verify(secret, token, *caveats):
    macaroon = Macaroon.deserialize(token.removeprefix(PREFIX))
    seen = []
    verifier = Verifier()
    verifier.satisfy_general(lambda caveat: seen.append(json.loads(caveat)) or True)
    verifier.verify(macaroon, root_key(secret))
    result = {
        "location": macaroon.location,
        "identifier": json.loads(macaroon.identifier),
        "caveats": seen,
        "again": PREFIX + macaroon.serialize(),
    }
    for caveat in caveats:
        macaroon.add_first_party_caveat(caveat)
    return json.dumps({**result, "narrowed": PREFIX + macaroon.serialize()})


command, *arguments = sys.argv[1:]
print({"mint": mint, "verify": verify}[command](*arguments), end="")
