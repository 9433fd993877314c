// Dialogs of changes: suspend, resume, revoke, finish.

import { call } from "../api.js";
import { cli, curl } from "../commands.js";
import { html, useAction, useEffect, useRef, useState } from "../html.js";
import { REASONS, isImported } from "../keystate.js";
import { plural } from "../time.js";
import { Choices, Commands, Dialog, Failure, Field, Notice, shown, toast } from "../ui.js";

/**
 * A dialog that does one thing, and stays open with the problem if it fails. `done` is what is said
 * then, or makes it of what `run` returns; `cancel` is the word for closing it while it runs.
 */
export function Change({ title, verb, tone = "primary", run, forms, done, onClose, children, disabled = false, cancel = "Cancel" }) {
  const action = useAction(async () => {
    const answer = await run();
    if (done) toast(typeof done === "function" ? done(answer) : done);
    onClose(true);
  });
  const send = (event) => {
    event.preventDefault();
    if (!disabled && !action.busy) action.run();
  };
  return html`<${Dialog} title=${title} onClose=${() => onClose(false)} foot=${html`
      <button type="button" class="button" onClick=${() => onClose(false)}>${action.busy ? cancel : "Cancel"}</button>
      <button type="submit" form="change" class="button ${tone}" disabled=${disabled || action.busy}>${action.busy ? `${verb}: sending` : verb}</button>`}>
    <form id="change" class="stack" onSubmit=${send}>${children}</form>
    ${action.problem && html`<${Failure} problem=${action.problem} />`}
    ${forms && html`<${Commands} forms=${forms} />`}
  <//>`;
}

const operation = (verb, key) => `admin${verb}${isImported(key) ? "Imported" : "Issued"}ApiKey`;

export const operationOf = operation;

const HOURS = { "1h": 1, "24h": 24, "7d": 168 };

function untilOf(choice) {
  return HOURS[choice] ? new Date(Date.now() + HOURS[choice] * 3_600_000).toISOString().replace(/\.\d+/, "") : undefined;
}

const untilOptions = [
  { value: "", label: "Until resumed" },
  { value: "1h", label: "1 hour" },
  { value: "24h", label: "24 hours" },
  { value: "7d", label: "7 days" },
];

/** Suspends a key or, with `actor`, all keys of an actor. */
export function Suspend({ of: key, actor, onClose }) {
  const [reason, setReason] = useState("");
  const [choice, setChoice] = useState("");
  const [until, setUntil] = useState(undefined);
  const body = { ...(reason.trim() && { reason: reason.trim() }), ...(until && { until }) };
  const name = actor ? "adminSuspendActor" : operation("Suspend", key);
  const id = actor ?? key.key_id;
  const choose = (value) => {
    setChoice(value);
    setUntil(untilOf(value));
  };
  return html`<${Change} title=${actor ? `Suspend all keys of ${shown(actor)}` : `Suspend ${shown(key.name)}`} verb="Suspend" tone="danger fill"
    run=${() => call(name, { path: { id }, body })} onClose=${onClose} done="Suspended; it is refused everywhere within seconds"
    forms=${{ talos: actor ? cli.suspendActor(id, body) : cli.suspend(id, body), curl: curl(name, { path: { id }, body }) }}>
    <p>${actor ? "All its keys are refused, those issued later among them." : "The key is refused everywhere within seconds."} Resuming it gives everything back as it was.</p>
    <${Field} id="reason" label="Reason, for people" hint="Stands beside the key until it is resumed">${(props) => html`<input class="input" ...${props} maxlength="1024" autofocus value=${reason} onInput=${(event) => setReason(event.target.value)} />`}<//>
    <${Choices} name="until" legend="Ends" options=${untilOptions} value=${choice} onChange=${choose} />
  <//>`;
}

export function Resume({ of: key, actor, onClose }) {
  const name = actor ? "adminResumeActor" : operation("Resume", key);
  const id = actor ?? key.key_id;
  return html`<${Change} title=${actor ? `Resume all keys of ${shown(actor)}` : `Resume ${shown(key.name)}`} verb="Resume" run=${() => call(name, { path: { id }, body: {} })} onClose=${onClose}
    done="Resumed; it works within seconds" forms=${{ talos: actor ? cli.resumeActor(id) : cli.resume(id), curl: curl(name, { path: { id }, body: {} }) }}>
    <p>${actor ? "Its keys work again; those that are suspended themselves stay so." : "The key works again, with the same secret, within seconds."}</p>
    ${!actor && key.actor_suspension && html`<${Notice} tone="warn" title="Its actor is suspended, too"><p>The key stays refused until ${shown(key.actor_id)} is resumed.</p><//>`}
  <//>`;
}

/** Reason of a revocation, and its text where one may stand. */
function ReasonFields({ reason, setReason, text, setText }) {
  return html`
    <${Field} id="revocation-reason" label="Reason">${(props) => html`<select class="input" ...${props} value=${reason} onChange=${(event) => setReason(event.target.value)}>
      ${Object.entries(REASONS).map(([value, label]) => html`<option value=${value} selected=${value === reason}>${label[0].toUpperCase() + label.slice(1)}</option>`)}</select>`}<//>
    ${reason === "REVOCATION_REASON_PRIVILEGE_WITHDRAWN" && html`<${Field} id="revocation-text" label="Description" hint="Optional; stays on record">${(props) => html`<input class="input" ...${props} maxlength="1024" value=${text} onInput=${(event) => setText(event.target.value)} />`}<//>`}`;
}

function bodyOf(reason, text) {
  const described = reason === "REVOCATION_REASON_PRIVILEGE_WITHDRAWN" && text.trim();
  return { reason, ...(described && { description: text.trim() }) };
}

export function Revoke({ of: key, onClose, reason: first = "REVOCATION_REASON_UNSPECIFIED" }) {
  const [reason, setReason] = useState(first);
  const [text, setText] = useState("");
  const body = bodyOf(reason, text);
  const name = operation("Revoke", key);
  const path = { id: key.key_id };
  return html`<${Change} title=${`Revoke ${shown(key.name)}`} verb="Revoke for good" tone="danger fill" run=${() => call(name, { path, body })} onClose=${onClose}
    done="Revoked; it is refused everywhere within seconds" forms=${{ talos: cli.revoke(key.key_id, reason, body.description), curl: curl(name, { path, body }) }}>
    <p>This can't be taken back. ${key.last_used_time || key.last_used_address ? "The key is in use: what uses it will be refused within seconds." : "The key has not been used."} To try what would happen, suspend it first.</p>
    <${ReasonFields} ...${{ reason, setReason, text, setText }} />
  <//>`;
}

/**
 * Revokes several keys, one operation each, so that each has its own line in the audit log. Closing
 * it, or leaving the screen, stops after the one that is being sent.
 */
export function RevokeMany({ keys, onClose }) {
  const [reason, setReason] = useState("REVOCATION_REASON_UNSPECIFIED");
  const [text, setText] = useState("");
  const [failed, setFailed] = useState([]);
  const [progress, setProgress] = useState(0);
  const [left, setLeft] = useState(keys);
  const [isStopping, setStopping] = useState(false);
  const state = useRef({ isRunning: false, isStopped: false, revoked: 0 }).current;
  useEffect(() => () => {
    state.isStopped = true;
  }, []);
  const body = bodyOf(reason, text);
  const run = async () => {
    const failures = [];
    setFailed([]);
    state.isRunning = true;
    for (const [index, key] of left.entries()) {
      if (state.isStopped) break;
      setProgress(index + 1);
      try {
        await call("adminRevokeApiKey", { path: { id: key.key_id }, body });
        state.revoked += 1;
      } catch (problem) {
        failures.push({ key, problem });
      }
    }
    state.isRunning = false;
    if (state.isStopped) return;
    setFailed(failures);
    setLeft(failures.map((one) => one.key));
    if (failures.length) throw failures[0].problem;
  };
  const close = (isDone) => {
    if (isDone || !state.isRunning) return onClose(state.revoked > 0);
    state.isStopped = true;
    return setStopping(true);
  };
  const said = () => (state.revoked < keys.length ? `Stopped: ${state.revoked} of ${plural(keys.length, "key")} revoked` : `${plural(keys.length, "key")} revoked`);
  const working = keys.filter((key) => key.status === "KEY_STATUS_ACTIVE").length;
  return html`<${Change} title=${`Revoke ${plural(keys.length, "key")}`} verb="Revoke for good" tone="danger fill" run=${run} onClose=${close} done=${said} cancel="Stop"
    forms=${{ talos: keys.map((key) => cli.revoke(key.key_id, reason, body.description)).join("\n"), curl: keys.map((key) => curl("adminRevokeApiKey", { path: { id: key.key_id }, body })).join("\n") }}>
    <p>This can't be taken back. ${plural(working, "key")} of them still ${working === 1 ? "works" : "work"}. Each is revoked by an operation of its own, in the order of the list.</p>
    <ul class="tags">${keys.slice(0, 12).map((key) => html`<li class="tag">${shown(key.name)}</li>`)}${keys.length > 12 && html`<li class="muted">and ${keys.length - 12} more</li>`}</ul>
    <${ReasonFields} ...${{ reason, setReason, text, setText }} />
    ${progress > 0 && !failed.length && html`<p role="status">${progress} of ${left.length}${isStopping ? ", then it stops" : ""}</p>`}
    ${failed.length > 0 && html`<${Notice} tone="bad" title=${`${plural(failed.length, "key")} not revoked`}><ul>${failed.map((one) => html`<li>${shown(one.key.name)}: ${shown(one.problem.message)}</li>`)}</ul><//>`}
  <//>`;
}

export function Finish({ of: key, onClose }) {
  const path = { id: key.key_id };
  return html`<${Change} title=${`End ${shown(key.name)} now`} verb="End it now" tone="danger fill" run=${() => call("adminFinishIssuedApiKey", { path, body: {} })} onClose=${onClose}
    done="Ended; only the new key works" forms=${{ talos: cli.finish(key.key_id), curl: curl("adminFinishIssuedApiKey", { path, body: {} }) }}>
    <p>The old key ends before its time. Whoever still uses it is refused within seconds; the new key stays.</p>
  <//>`;
}
