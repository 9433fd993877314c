"""Verifies a token as a backend does: PyJWT, with the key from a JWKS URL. Prints the claims as JSON.

    verify_jwt.py JWKS_URL ISSUER TOKEN
"""

import json
import sys

import jwt

url, issuer, token = sys.argv[1:]
key = jwt.PyJWKClient(url).get_signing_key_from_jwt(token).key
claims = jwt.decode(
    token,
    key,
    algorithms=["EdDSA", "RS256"],
    issuer=issuer,
    options={"require": ["exp", "iat", "nbf", "iss", "sub", "jti"]},
)
json.dump(claims, sys.stdout)
