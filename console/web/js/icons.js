// Icons, drawn with the text's colour. Words always stand beside them, or in their button's label.

import { html } from "./html.js";

const paths = {
  overview: "M3 3h8v8H3zM13 3h8v5h-8zM13 10h8v11h-8zM3 13h8v8H3z",
  key: "M14.5 9.5a4.5 4.5 0 1 0-4.3 4.49L12 12h2v2h2v2h2v2h3v-3.5l-6.6-6.6c.07-.3.1-.6.1-.9zM8.5 8.5h.01",
  plus: "M12 5v14M5 12h14",
  pulse: "M3 12h4l3-8 4 16 3-8h4",
  route: "M6 19a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM18 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8.5 14.5 15.5 9.5",
  leak: "M12 3s7 7.6 7 12a7 7 0 0 1-14 0c0-4.4 7-12 7-12zM12 11v4M12 18h.01",
  server: "M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M4 12.5 9.5 18 20 6.5",
  x: "M6 6l12 12M18 6 6 18",
  warn: "M12 3.5 22 20H2zM12 10v4M12 17h.01",
  info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 11v5M12 8h.01",
  menu: "M4 6h16M4 12h16M4 18h16",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M19 5l-1.4 1.4M6.4 17.6 5 19",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  download: "M12 4v11M7 10.5 12 15l5-4.5M4 20h16",
  rotate: "M4 12a8 8 0 0 1 14-5.3L20 9M20 4v5h-5M20 12a8 8 0 0 1-14 5.3L4 15M4 20v-5h5",
  pause: "M8 5v14M16 5v14",
  play: "M7 4.5v15l12-7.5z",
  ban: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM5.7 5.7l12.6 12.6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  down: "M6 9l6 6 6-6",
  up: "M6 15l6-6 6 6",
  help: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM9.5 9.5a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.9-1.1 1.8M12 17h.01",
  actor: "M12 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21a8 8 0 0 1 16 0",
  arrow: "M5 12h14M13 6l6 6-6 6",
};

export function Icon({ name }) {
  return html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.9" stroke-linecap="round"
    stroke-linejoin="round" class="icon" aria-hidden="true"><path d=${paths[name]} /></svg>`;
}

export function Logo() {
  return html`<svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8" fill="#3350dd" />
    <path d="M8 9h16v4h-6v11h-4V13H8z" fill="#fff" /><circle cx="23.5" cy="21.5" r="3.2" fill="none" stroke="#9fb1ff" stroke-width="2.2" /></svg>`;
}
