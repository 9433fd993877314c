// The list of keys: search, filters, order, selection.

import { curl, cli } from "../commands.js";
import { html, useAction, useEffect, useLoad, useRef, useState } from "../html.js";
import { Icon } from "../icons.js";
import { endOf, EXPIRING_DAYS, isActive, isIdle, expiresWithin } from "../keystate.js";
import { CONCERNS, PAGE_SIZE, SORTS, STATES, allKeys, csvOf, filterOf, listKeys, withChanges } from "../listing.js";
import { go, keyLink, link } from "../router.js";
import { may } from "../session.js";
import { count, plural } from "../time.js";
import { Badge, Commands, Empty, Failure, Loading, Notice, Tags, Time, save, shown, toast } from "../ui.js";
import { RevokeMany } from "./change.js";

/** Search, filters and order that the address names. */
function askedOf(query) {
  return Object.fromEntries(["q", "state", "concern", "actor", "scope", "sort"].map((name) => [name, query.get(name) ?? ""]));
}

function usePages(kind, asked) {
  const [more, setMore] = useState([]);
  const first = useLoad((signal) => listKeys(kind, asked, "", signal), [kind, JSON.stringify(asked)]);
  useEffect(() => setMore([]), [first.data]);
  const pages = first.data ? [first.data, ...more] : [];
  const next = pages.at(-1)?.next;
  const current = useRef();
  current.current = first.data;
  const loadMore = useAction(async () => {
    const page = await listKeys(kind, asked, next);
    // Another list may be shown by now.
    if (current.current === first.data) setMore((before) => [...before, page]);
  });
  return { ...first, keys: pages.flatMap((page) => page.keys), next, loadMore };
}

export function Keys({ kind, query }) {
  const asked = askedOf(query);
  const list = usePages(kind, asked);
  const [selected, setSelected] = useState(new Map());
  const [revoking, setRevoking] = useState(false);
  useEffect(() => setSelected(new Map()), [kind, query.toString()]);
  const change = (changes) => go(link(["keys", kind], withChanges(asked, changes)), { replace: true });
  const toggle = (key) => {
    const after = new Map(selected);
    if (!after.delete(key.key_id)) after.set(key.key_id, key);
    setSelected(after);
  };
  const isFiltered = asked.q || asked.state || asked.concern || asked.actor || asked.scope;
  const total = list.data?.total;
  return html`<div class="page">
    <div class="head"><div><h1>Keys</h1><p>${total ? html`${total.isEstimate ? "About " : ""}${plural(total.number, "key")}${isFiltered ? " found" : ""}` : "Who may call, for what, from where and until when"}</p></div>
      <div class="actions"><${Export} kind=${kind} asked=${asked} />
        ${kind === "imported" && may("adminImportApiKey") && html`<a class="button" href="#/import"><${Icon} name="plus" />Import a key</a>`}
        ${may("adminIssueApiKey") && html`<a class="button primary" href="#/issue"><${Icon} name="plus" />Issue a key <kbd>n</kbd></a>`}</div></div>
    <${Filters} kind=${kind} asked=${asked} change=${change} />
    ${list.data?.scanned > 0 && html`<${Notice} title=${`The newest ${count(list.data.scanned)} keys were looked through`}><p>This server can't search by itself. Choose an actor or a state to look through fewer.</p><//>`}
    ${list.error && html`<${Failure} problem=${list.error} retry=${list.reload} />`}
    ${!list.error && html`<section class="card" aria-label="Keys" aria-busy=${list.loading}>
      ${list.data === undefined ? html`<${Loading} what="keys" />` : list.keys.length === 0 ? html`<${Nothing} isFiltered=${isFiltered} kind=${kind} />` : html`<${Table}
        keys=${list.keys} asked=${asked} change=${change} selected=${selected} toggle=${toggle} setSelected=${setSelected} />`}
      ${list.next && html`<footer class="row"><button class="button small" disabled=${list.loadMore.busy} onClick=${() => list.loadMore.run()}>Show more</button><span>${count(list.keys.length)} shown${total ? ` of ${total.isEstimate ? "about " : ""}${count(total.number)}` : ""}</span></footer>`}
      ${list.loadMore.problem && html`<footer><${Failure} problem=${list.loadMore.problem} /></footer>`}
    </section>`}
    ${selected.size > 0 && html`<div class="bulk" role="region" aria-label="Selected keys"><span>${plural(selected.size, "key")} selected</span>
      <button class="button quiet" onClick=${() => setSelected(new Map())}>Clear</button>
      <button class="button" onClick=${() => save("keys.csv", "text/csv", csvOf([...selected.values()]))}><${Icon} name="download" />CSV</button>
      ${may("adminRevokeApiKey") && html`<button class="button danger" onClick=${() => setRevoking(true)}><${Icon} name="ban" />Revoke</button>`}</div>`}
    ${revoking && html`<${RevokeMany} keys=${[...selected.values()]} onClose=${(done) => {
      setRevoking(false);
      if (done) {
        setSelected(new Map());
        list.reload();
      }
    }} />`}
    <${Commands} forms=${commandsOf(kind, asked)} />
  </div>`;
}

function commandsOf(kind, asked) {
  const operation = kind === "issued" ? "adminListIssuedApiKeys" : "adminListImportedApiKeys";
  const filter = filterOf(asked);
  const order = SORTS[asked.sort]?.order;
  return {
    talos: cli.list({ kind, filter, order, query: asked.q }),
    curl: curl(operation, { query: { page_size: PAGE_SIZE, filter, order_by: order, query: asked.q } }),
  };
}

function Export({ kind, asked }) {
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    try {
      const { keys, hasMore } = await allKeys(kind, asked);
      save("keys.csv", "text/csv", csvOf(keys));
      toast(hasMore ? `Only the first ${plural(keys.length, "key")} exported. Filter the list to export the others.` : `${plural(keys.length, "key")} exported`);
    } catch (problem) {
      toast(`Not exported: ${problem.message}`);
    } finally {
      setBusy(false);
    }
  };
  return html`<button class="button" disabled=${busy} onClick=${run}><${Icon} name="download" />${busy ? "Exporting" : "Export CSV"}</button>`;
}

function Filters({ kind, asked, change }) {
  const [text, setText] = useState(asked.q);
  const timer = useRef(0);
  // A search that begins a moment after the last letter is one in the list as it is by then.
  const latest = useRef(change);
  latest.current = change;
  useEffect(() => () => clearTimeout(timer.current), []);
  useEffect(() => setText((typed) => (typed.trim() === asked.q ? typed : asked.q)), [asked.q]);
  const search = (event) => {
    const value = event.target.value;
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => latest.current({ q: value.trim() }), 200);
  };
  const chip = (name, value, label) => html`<button class="chip" aria-pressed=${asked[name] === value ? "true" : "false"}
    onClick=${() => change({ [name]: asked[name] === value ? "" : value })}>${label}${asked[name] === value && html`<${Icon} name="x" />`}</button>`;
  return html`<div class="stack" role="search">
    <div class="row">
      <span class="tabs" role="group" aria-label="Kind of keys">${["issued", "imported"].map((one) => html`<a href=${link(["keys", one])} aria-current=${one === kind ? "true" : undefined}>${one === "issued" ? "Issued" : "Imported"}</a>`)}</span>
      <div class="search"><${Icon} name="search" /><input id="search" class="input" type="search" placeholder="Beginning of name, actor, id, metadata" aria-label="Search keys"
        value=${text} onInput=${search} maxlength="200" spellcheck=${false} autocomplete="off" /><kbd aria-hidden="true">/</kbd></div>
      <select class="input" aria-label="Order" value=${asked.sort} onChange=${(event) => change({ sort: event.target.value })}>
        ${Object.entries(SORTS).map(([value, sort]) => html`<option value=${value} selected=${asked.sort === value}>${sort.label}</option>`)}</select>
    </div>
    <div class="chips">
      ${Object.entries(STATES).map(([value, label]) => chip("state", value, label))}
      ${Object.entries(CONCERNS).map(([value, label]) => chip("concern", value, label))}
      ${asked.actor && chip("actor", asked.actor, `Actor: ${shown(asked.actor)}`)}
      ${asked.scope && chip("scope", asked.scope, `Scope: ${shown(asked.scope)}`)}
    </div>
  </div>`;
}

function Nothing({ isFiltered, kind }) {
  if (isFiltered) return html`<${Empty} title="No key matches"><p>Take a filter away, or search for less. A search finds names, actors, ids and metadata that begin with its text.</p><a class="button" href=${link(["keys", kind])}>Show all</a><//>`;
  return html`<${Empty} icon="key" title=${kind === "issued" ? "No key yet" : "No imported key"}>
    <p>${kind === "issued" ? "Issue the first one; it works at Envoy within seconds." : "Import keys of other systems here, or with talos keys imported import."}</p>
    ${kind === "issued" && may("adminIssueApiKey") && html`<a class="button primary" href="#/issue">Issue a key</a>`}<//>`;
}

function Table({ keys, asked, change, selected, toggle, setSelected }) {
  const all = keys.length > 0 && keys.every((key) => selected.has(key.key_id));
  const selectable = may("adminRevokeApiKey");
  const head = (label, sort, reverse, className = "") => html`<th scope="col" class=${className} aria-sort=${asked.sort === sort ? "ascending" : asked.sort === reverse ? "descending" : undefined}>
    <button class="sort" onClick=${() => change({ sort: asked.sort === sort ? reverse : sort })}>${label}${asked.sort === sort ? html`<${Icon} name="up" />` : asked.sort === reverse ? html`<${Icon} name="down" />` : ""}</button></th>`;
  return html`<div class="table-wrap"><table class="rows ${selectable ? "can-select" : ""}">
    <thead><tr>
      ${selectable && html`<th scope="col" class="select-cell"><input type="checkbox" aria-label="Select all shown" checked=${all}
        onChange=${() => setSelected(all ? new Map() : new Map(keys.map((key) => [key.key_id, key])))} /></th>`}
      <th scope="col">Name</th><th scope="col">State</th><th scope="col">Actor</th><th scope="col">Scopes</th>
      ${head("Last used", "used", "-used")}${head("Expires", "expires", "-expires")}${head("Created", "created", "", "created")}
    </tr></thead>
    <tbody>${keys.map((key) => html`<${Row} key=${key.key_id} of=${key} isSelected=${selected.has(key.key_id)} toggle=${selectable ? toggle : null} />`)}</tbody>
  </table></div>`;
}

function Row({ of: key, isSelected, toggle }) {
  const end = endOf(key);
  const soon = expiresWithin(key, EXPIRING_DAYS);
  const idle = isIdle(key);
  return html`<tr class=${isSelected ? "selected" : ""}>
    ${toggle && html`<td class="select-cell"><input type="checkbox" aria-label=${`Select ${shown(key.name)}`} checked=${isSelected} onChange=${() => toggle(key)} /></td>`}
    <td class="name-cell"><a class="clip row-link" href=${keyLink(key.key_id)} title=${shown(key.name)}>${shown(key.name)}</a><span class="sub mono">${key.key_id.slice(0, 8)}${key.visibility === "KEY_VISIBILITY_PUBLIC" ? " \u00b7 publishable" : ""}</span></td>
    <td><${Badge} of=${key} /></td>
    <td class="actor-cell full"><a class="clip" href=${link(["actors", key.actor_id])} title=${shown(key.actor_id)}>${shown(key.actor_id)}</a></td>
    <td class="full"><${Tags} items=${key.scopes} most=${2} /></td>
    <td data-label="Last used">${idle ? html`<span class="pill warn" title="Unused for a long time"><${Time} at=${key.last_used_time} /></span>` : html`<${Time} at=${key.last_used_time} />`}</td>
    <td data-label="Expires">${isActive(key) && soon && end ? html`<span class="pill warn"><${Time} at=${new Date(end).toISOString()} /></span>` : html`<${Time} at=${key.expire_time} empty="never" />`}</td>
    <td class="created" data-label="Created"><${Time} at=${key.create_time} /></td>
  </tr>`;
}
