// A secret that is shown once: copied, then gone.

import { curl } from "../commands.js";
import { html, useState } from "../html.js";
import { Icon } from "../icons.js";
import { useGuard } from "../sending.js";
import { Commands, Copy, Notice, shown } from "../ui.js";

const QUESTION = "The secret is shown only here. Leave without having stored it?";

/** Name of a Kubernetes object for a key's name. */
export function objectName(name) {
  const text = name.toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").slice(0, 50).replace(/^-+|-+$/g, "");
  return `${text || "api"}-key`;
}

export function Secret({ secret, of: key, children, done }) {
  const [isStored, setStored] = useState(false);
  useGuard(isStored ? "" : QUESTION);
  const [isShown, setShown] = useState(true);
  const mask = (text) => (isShown ? text : text.replaceAll(secret, `${secret.slice(0, 10)}${"\u2022".repeat(18)}`));
  const forms = {
    "Use it": `curl -H 'x-api-key: ${secret}' https://your-api.example/`,
    Kubernetes: `kubectl create secret generic ${objectName(key.name)} --from-literal=api-key='${secret}'`,
    Environment: `export API_KEY='${secret}'`,
    "Revoke it (holder)": curl("revokeApiKey", { body: { credential: secret } }),
  };
  return html`<section class="card" aria-label="The secret"><div class="card-body stack">
    <${Notice} tone="warn" title="Store the secret now"><p>Talos keeps only a checksum of it: nobody can show it again. Lost secrets are rotated.</p><//>
    <div class="secret"><code data-secret>${mask(secret)}</code>
      <button type="button" class="button small" onClick=${() => setShown(!isShown)}>${isShown ? "Hide" : "Show"}</button>
      <${Copy} text=${secret} what="secret" label="Copy secret" primary /></div>
    <${Commands} forms=${forms} mask=${mask} open />
    ${children}
    <label class="check"><input type="checkbox" checked=${isStored} onChange=${() => setStored(!isStored)} /><span>I stored the secret of <b>${shown(key.name)}</b> where it belongs</span></label>
    <div class="actions"><button type="button" class="button primary" disabled=${!isStored} onClick=${done}>Done <${Icon} name="arrow" /></button></div>
  </div></section>`;
}
