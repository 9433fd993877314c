// Addresses of the screens. They stand behind the `#`, so what is looked at, and for what, is never
// sent to a server or written into a proxy's log.

/** Splits an address: `#/keys/issued/ID?sort=name` to its path and its parameters. */
export function parse(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  const segments = path.split("/").filter(Boolean).map(decode);
  return { segments, query: new URLSearchParams(query) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Returns the address of a screen. */
export function link(segments, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return `#/${segments.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

// Asked before a screen is left; each returns its question, or "".
const guards = new Set();

/** Adds a guard; returns what takes it away. */
export function addGuard(ask) {
  guards.add(ask);
  return () => void guards.delete(ask);
}

/** The first question of a guard, or "". */
export function guardText() {
  return [...guards].map((ask) => ask()).find(Boolean) ?? "";
}

export function go(hash, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", hash);
  else location.hash = hash;
  if (replace) window.dispatchEvent(new HashChangeEvent("hashchange"));
}

/** Returns the address of a key's screen. */
export function keyLink(id, ...rest) {
  return link(["keys", /^[0-9a-f]{64}$/.test(id) ? "imported" : "issued", id, ...rest]);
}
