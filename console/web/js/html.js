// Preact with its templates: tagged literals instead of JSX, so that nothing has to be compiled.

import htm from "../vendor/htm.js";
import { Fragment, h, render } from "../vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.js";

export const html = htm.bind(h);
export { Fragment, render, useEffect, useLayoutEffect, useMemo, useRef, useState };

/** Time after which a request counts as lost, as after a sleep of the computer. */
const LOST_AFTER = 30_000;

/**
 * Loads something; the newest request wins, and what was shown stays until it answers. `reload` gives
 * up a request in flight. `refresh`, for timers, doesn't unless it is lost: an answer slower than the
 * timer is shown.
 */
export function useLoad(load, dependencies) {
  const [state, setState] = useState({ data: undefined, error: undefined, loading: true });
  const [turn, setTurn] = useState(0);
  const [isLoading, began] = [useRef(false), useRef(0)];
  useEffect(() => {
    const abort = new AbortController();
    isLoading.current = true;
    began.current = Date.now();
    setState((before) => ({ ...before, loading: true }));
    const settle = (change) => {
      if (abort.signal.aborted) return;
      isLoading.current = false;
      setState(change);
    };
    Promise.resolve(load(abort.signal)).then(
      (data) => settle({ data, error: undefined, loading: false }),
      (error) => settle((before) => ({ ...before, error, loading: false })),
    );
    return () => abort.abort();
  }, [...dependencies, turn]);
  const reload = () => setTurn((before) => before + 1);
  return { ...state, reload, refresh: () => (isLoading.current && Date.now() - began.current < LOST_AFTER) || reload() };
}

/** Runs what a form or dialog is for. What it returned is `answer`, what it threw `problem`. */
export function useAction(action) {
  const idle = { busy: false, problem: null, answer: null };
  const [state, setState] = useState(idle);
  const run = async (event) => {
    event?.preventDefault();
    setState({ ...idle, busy: true });
    try {
      setState({ ...idle, answer: await action() });
    } catch (problem) {
      setState({ ...idle, problem });
    }
  };
  return { ...state, run, reset: () => setState(idle) };
}

/** Calls a function every so many milliseconds while the page is seen. */
export function useEvery(milliseconds, action) {
  const latest = useRef(action);
  latest.current = action;
  useEffect(() => {
    const timer = setInterval(() => document.hidden || latest.current(), milliseconds);
    return () => clearInterval(timer);
  }, [milliseconds]);
}
