// Charts of usage: requests by hour or day, allowed and refused.

import { html, useEffect, useRef, useState } from "./html.js";
import { outcomeWords } from "./keystate.js";
import { bucketLabel, count, percent, plural, shortCount } from "./time.js";
import uPlot from "../vendor/uplot.js";

/** Adds rows of a usage report up to buckets, without gaps. */
export function buckets(rows, start, end, isHour) {
  const step = isHour ? 3600 : 86_400;
  const first = Math.floor(new Date(start).getTime() / 1000 / step) * step;
  const last = Math.floor((new Date(end).getTime() - 1) / 1000 / step) * step;
  const size = Math.max(1, Math.min(2000, (last - first) / step + 1));
  const times = Array.from({ length: size }, (_, index) => first + index * step);
  const allowed = times.map(() => 0);
  const refused = times.map(() => 0);
  const outcomes = new Map();
  for (const row of rows) {
    const number = Number(row.count);
    const outcome = row.outcome ?? "allow";
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + number);
    const index = Math.round((new Date(row.start_time).getTime() / 1000 - first) / step);
    if (index < 0 || index >= size) continue;
    if (outcome === "allow") allowed[index] += number;
    else refused[index] += number;
  }
  const sorted = [...outcomes].sort((one, other) => other[1] - one[1]);
  const total = sorted.reduce((sum, [, number]) => sum + number, 0);
  return { times, allowed, refused, outcomes: sorted, total, isHour };
}

/** The colour that a style gives an element, as the canvas needs it. */
function colour(element, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  element.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function options(element, data, width, height, onMove) {
  const [muted, line, allow, refuse] = ["--muted", "--line", "--chart-allow", "--chart-refuse"].map((name) => colour(element, name));
  const step = data.isHour ? 3600 : 86_400;
  const font = `12px ${getComputedStyle(element).fontFamily}`;
  const bars = uPlot.paths.bars({ size: [0.74, 44], radius: 0.12, gap: 1 });
  const series = (fill) => ({ stroke: fill, fill, width: 0, paths: bars, points: { show: false } });
  const axis = { stroke: muted, font, ticks: { show: false }, grid: { show: false } };
  return {
    width,
    height,
    padding: [10, 18, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
    scales: { x: { time: true, range: (_, least, most) => [least - step / 2, most + step / 2] }, y: { range: (_, __, most) => [0, Math.max(4, most * 1.06)] } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    series: [{}, series(refuse), series(allow)],
    axes: [
      { ...axis, size: 28, space: 70, values: (_, splits, __, ___, increment) => splits.map((at) => axisLabel(at, increment)) },
      { ...axis, size: 48, space: 34, grid: { show: true, stroke: line, width: 1 }, values: (_, splits) => splits.map((number) => (Number.isInteger(number) ? shortCount(number) : "")) },
    ],
    hooks: { setCursor: [(plot) => onMove(plot.cursor.idx, plot.cursor.left)] },
  };
}

function axisLabel(at, step) {
  const date = new Date(at * 1000);
  if (step < 86_400 && date.getUTCHours() !== 0) return `${String(date.getUTCHours()).padStart(2, "0")}:00`;
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
}

export function UsageChart({ data, height = 210, label }) {
  const place = useRef(null);
  const plot = useRef(null);
  const [tip, setTip] = useState(null);
  useEffect(() => {
    const element = place.current;
    const draw = () => {
      plot.current?.destroy();
      // The refused ones stand on the allowed ones: the first series is drawn first, behind.
      const all = data.allowed.map((number, index) => number + data.refused[index]);
      const move = (index, left) => setTip(index === null || index === undefined ? null : { index, left });
      const width = Math.max(200, element.clientWidth);
      plot.current = new uPlot(options(element, data, width, height, move), [data.times, all, data.allowed], element);
    };
    draw();
    const sizes = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(200, element.clientWidth), height }));
    sizes.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    window.addEventListener("themechange", draw);
    return () => {
      sizes.disconnect();
      scheme.removeEventListener("change", draw);
      window.removeEventListener("themechange", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [data, height]);
  const at = tip && data.times[tip.index] !== undefined ? tip.index : null;
  const side = at === null ? {} : tip.left > place.current.clientWidth / 2 ? { left: "56px" } : { right: "8px" };
  return html`<figure class="chart" role="group" aria-label=${label}>
    <div ref=${place} aria-hidden="true"></div>
    ${at !== null && html`<div class="tip" style=${side} aria-hidden="true">
      <div class="muted">${bucketLabel(data.times[at], data.isHour)}</div>
      <div><b>${count(data.allowed[at])}</b> allowed</div><div><b>${count(data.refused[at])}</b> refused</div></div>`}
    <${ChartTable} data=${data} label=${label} />
  </figure>`;
}

/** The same numbers for those who don't see the chart. */
function ChartTable({ data, label }) {
  const used = data.times.map((time, index) => [time, data.allowed[index], data.refused[index]]).filter(([, one, other]) => one + other);
  return html`<div class="visually-hidden"><table><caption>${label}: ${plural(data.total, "request")}</caption>
    <thead><tr><th scope="col">Time</th><th scope="col">Allowed</th><th scope="col">Refused</th></tr></thead>
    <tbody>${used.slice(-48).map(([time, allowed, refused]) => html`<tr><th scope="row">${bucketLabel(time, data.isHour)}</th><td>${allowed}</td><td>${refused}</td></tr>`)}</tbody>
  </table></div>`;
}

export function Legend({ data }) {
  return html`<div class="legend">
    ${data.outcomes.map(([outcome, number]) => html`<span><i class=${outcome === "allow" ? "" : "refuse"}></i>${outcomeWords(outcome)}${" "}
      <b>${count(number)}</b> ${percent(number, data.total)}</span>`)}
  </div>`;
}
