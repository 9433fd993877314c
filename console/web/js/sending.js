// Requests whose answer must not get lost: repeated ones make nothing twice, and leaving them is asked.

import { useEffect, useRef } from "./html.js";
import { addGuard } from "./router.js";

/** A new id of a request. `crypto.randomUUID` is missing where a page has no TLS. */
function newRequestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Bodies of requests that make a key. As long as a form says the same, its body and `request_id` are
 * the same, so a request that is sent again after its answer got lost gets the first key.
 */
export function useRepeatable() {
  const sent = useRef(null);
  return {
    /** Returns the body to send for a form: what `make` makes of it, with an id. */
    bodyOf(form, make) {
      const content = JSON.stringify(form);
      if (sent.current?.content !== content) sent.current = { content, body: { ...make(form), request_id: newRequestId() } };
      return sent.current.body;
    },
    /** Forgets the body, so that the next request is another one. */
    forget() {
      sent.current = null;
    },
  };
}

/** Asks before the screen or the page is left, while there is a question. */
export function useGuard(question) {
  const latest = useRef(question);
  latest.current = question;
  useEffect(() => {
    const remove = addGuard(() => latest.current);
    const ask = (event) => {
      if (latest.current) event.preventDefault();
    };
    window.addEventListener("beforeunload", ask);
    return () => {
      remove();
      window.removeEventListener("beforeunload", ask);
    };
  }, []);
}
