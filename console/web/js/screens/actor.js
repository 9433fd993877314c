// An actor: all its keys, and the switch that stops them together.

import { call } from "../api.js";
import { curl } from "../commands.js";
import { html, useLoad, useState } from "../html.js";
import { Icon } from "../icons.js";
import { limitWords } from "../keystate.js";
import { listKeys } from "../listing.js";
import { keyLink, link } from "../router.js";
import { may } from "../session.js";
import { plural, shortDate } from "../time.js";
import { Badge, Commands, Empty, Loaded, Notice, Tags, Time, shown } from "../ui.js";
import { Resume, Suspend } from "./change.js";
import { EditActor } from "./edit.js";

export function ActorScreen({ id }) {
  const actor = useLoad((signal) => call("adminGetActor", { path: { id }, signal }), [id]);
  const keys = useLoad((signal) => listKeys("issued", { actor: id, state: "", q: "", scope: "", concern: "", sort: "" }, "", signal), [id]);
  const [dialog, setDialog] = useState("");
  const close = (done) => {
    setDialog("");
    if (done) {
      actor.reload();
      keys.reload();
    }
  };
  return html`<div class="page"><${Loaded} of=${actor} what="the actor">${(data) => html`
    <div class="head"><div><p class="crumbs"><a href="#/keys/issued">Keys</a><span aria-hidden="true">/</span></p><h1>${shown(data.display_name ?? id)}</h1>
      <p><span class="mono">${shown(id)}</span>, ${plural(data.issued_api_key_count, "issued key")}, ${plural(data.imported_api_key_count, "imported one")}${data.has_more ? " or more" : ""}</p></div>
      <div class="actions">${may("adminIssueApiKey") && html`<a class="button" href=${link(["issue"], { actor: id })}><${Icon} name="plus" />Issue a key</a>`}
      ${may("adminUpdateActor") && html`<button class="button" onClick=${() => setDialog("edit")}><${Icon} name="edit" />Edit</button>`}
      ${data.suspension ? may("adminResumeActor") && html`<button class="button primary" onClick=${() => setDialog("resume")}><${Icon} name="play" />Resume all</button>`
        : may("adminSuspendActor") && html`<button class="button danger" onClick=${() => setDialog("suspend")}><${Icon} name="pause" />Suspend all</button>`}</div></div>
    ${dialog === "edit" && html`<${EditActor} id=${id} of=${data} onClose=${close} />`}
    ${data.rate_limit_policies && html`<${Notice} title="Limits of all its keys together"><p>${data.rate_limit_policies.map((limit) => limitWords(limit)).join("; ")}${data.warnings?.length ? `. ${data.warnings.join(" ")}` : ""}</p><//>`}
    ${data.suspension && html`<${Notice} tone="warn" icon="ban" title=${`All its keys are refused${data.suspension.until ? ` until ${shortDate(data.suspension.until)}` : " until the actor is resumed"}`}>
      <p>${shown(data.suspension.reason ?? "No reason was given")}${data.suspension.suspended_by ? `, by ${shown(data.suspension.suspended_by)}` : ""}, <${Time} at=${data.suspension.suspended_at} />.</p><//>`}`}<//>
    <section class="card" aria-label="Keys of the actor"><header><h2>Keys</h2><a class="small" href=${link(["keys", "issued"], { actor: id })}>Search in them</a></header>
      <${Loaded} of=${keys} what="keys">${(page) => (page.keys.length === 0 ? html`<${Empty} icon="key" title="No issued key" />` : html`<div class="table-wrap"><table class="rows"><thead><tr><th scope="col">Name</th><th scope="col">State</th><th scope="col">Scopes</th><th scope="col">Last used</th><th scope="col">Expires</th></tr></thead>
        <tbody>${page.keys.map((key) => html`<tr><td class="name-cell"><a class="clip" href=${keyLink(key.key_id)}>${shown(key.name)}</a><span class="sub mono">${key.key_id.slice(0, 8)}</span></td><td><${Badge} of=${key} /></td><td class="full"><${Tags} items=${key.scopes} /></td><td data-label="Last used"><${Time} at=${key.last_used_time} /></td><td data-label="Expires"><${Time} at=${key.expire_time} /></td></tr>`)}</tbody></table></div>`)}<//></section>
    <${Commands} forms=${{ talos: `talos actors get '${id.replaceAll("'", "'\\''")}'`, curl: curl("adminGetActor", { path: { id } }) }} />
    ${dialog === "suspend" && html`<${Suspend} actor=${id} onClose=${close} />`}
    ${dialog === "resume" && html`<${Resume} actor=${id} onClose=${close} />`}
  </div>`;
}

