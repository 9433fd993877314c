// Times and numbers in words. Relative ones are for reading, exact ones stand beside them.

const UNITS = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const wholeNumber = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** "3 minutes ago", "in 2 days". */
export function relativeTime(time, now = Date.now()) {
  const seconds = (new Date(time).getTime() - now) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (Math.abs(seconds) < 45) return seconds > 5 ? "in a moment" : "just now";
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size * 0.95) ?? UNITS[5];
  return relative.format(Math.round(seconds / size), unit);
}

const two = (number) => String(number).padStart(2, "0");

/** "2026-04-17 05:45:37 UTC". */
export function exactTime(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  return `${date.toISOString().slice(0, 10)} ${date.toISOString().slice(11, 19)} UTC`;
}

/** "17 Apr", with the year unless it is this one's. */
export function shortDate(time, now = Date.now()) {
  const date = new Date(time);
  const year = date.getUTCFullYear() === new Date(now).getUTCFullYear() ? undefined : "numeric";
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year, timeZone: "UTC" });
}

/** "17 Apr, 05:00 UTC", or the day alone. */
export function bucketLabel(seconds, isHour) {
  const date = new Date(seconds * 1000);
  const day = date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
  return isHour ? `${day}, ${two(date.getUTCHours())}:00 UTC` : day;
}

/** "5 s", "3.5 min", "2 h", "12 days". */
export function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${trim(seconds)} s`;
  if (seconds < 5_400) return `${trim(seconds / 60)} min`;
  if (seconds < 129_600) return `${trim(seconds / 3_600)} h`;
  return `${trim(seconds / 86_400)} days`;
}

function trim(number) {
  return String(Math.round(number * 10) / 10);
}

/** "1 minute" for the API's "60s". */
export function windowWords(text) {
  const seconds = Number.parseFloat(text);
  const names = { 1: "second", 60: "minute", 3600: "hour", 86_400: "day", 2_592_000: "30 days", 31_536_000: "year" };
  return names[seconds] ?? span(seconds);
}

export function count(number) {
  return wholeNumber.format(number);
}

export function shortCount(number) {
  return number < 10_000 ? wholeNumber.format(number) : compact.format(number);
}

/** "1 key", "2 keys". */
export function plural(number, word) {
  return `${wholeNumber.format(number)} ${word}${number === 1 ? "" : "s"}`;
}

export function percent(part, whole) {
  if (!whole) return "0 %";
  const share = (part / whole) * 100;
  return `${share > 0 && share < 0.1 ? "< 0.1" : trim(share)} %`;
}
