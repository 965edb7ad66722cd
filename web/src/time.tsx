// Times as people read them: absolute, always with their zone, how long ago beside it; ISO when they are copied.
import { computed, signal } from '@preact/signals';
import { kept } from './kept';

/** `local`, `UTC`, or a name of the zone database. */
export const zone = kept('zone', 'local');

export const localZone = Intl.DateTimeFormat().resolvedOptions().timeZone;

const named = computed(() => (zone.value === 'local' ? undefined : zone.value));

const formats = computed(() => {
  const timeZone = named.value;
  const parts = { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' } as const;
  return {
    whole: new Intl.DateTimeFormat('en-CA', { ...parts, hourCycle: 'h23', timeZone }),
    zoned: new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short', timeZone }),
    offset: new Intl.DateTimeFormat('en-GB', { timeZoneName: 'longOffset', timeZone }),
  };
});

/** Now, told anew every five seconds. */
export const now = signal(Date.now());
setInterval(() => document.visibilityState === 'visible' && (now.value = Date.now()), 5000);

function partsOf(format: Intl.DateTimeFormat, at: number): Record<string, string> {
  return Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
}

export function zoneName(at: number): string {
  return partsOf(formats.value.zoned, at).timeZoneName ?? '';
}

/** `2026-11-28 14:02:11` */
export function absolute(at: number): string {
  const { year, month, day, hour, minute, second } = partsOf(formats.value.whole, at);
  return `${year}-${month}-${day} ${hour}:${minute}:${second}`;
}

/** `14:02:11` */
export function clock(at: number): string {
  return absolute(at).slice(11);
}

/** `3 min ago` */
export function ago(at: number, from = now.value): string {
  const seconds = Math.round((from - at) / 1000);
  if (Math.abs(seconds) < 10) return 'just now';
  return seconds > 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
}

/** So many seconds, in one unit. */
export function span(seconds: number): string {
  const units: [number, string][] = [[86400, 'd'], [3600, 'h'], [60, 'min']];
  const [size, unit] = units.find(([size]) => seconds >= size) ?? [1, 's'];
  const value = seconds / size;
  return `${value < 10 && size === 1 && !Number.isInteger(value) ? value.toFixed(1) : Math.floor(value)} ${unit}`;
}

/** A time with its zone and how long ago it is. */
export function Time({ at, short = false }: { at: string | null | undefined; short?: boolean }) {
  if (!at) return <span class="nothing">never</span>;
  const moment = Date.parse(at);
  if (Number.isNaN(moment)) return <time>{at}</time>;
  const [text, name] = [absolute(moment), zoneName(moment)];
  return (
    <time dateTime={at} data-iso={at} title={`${at}, ${ago(moment)}`}>
      {short ? text.slice(11) : text} <span class="zone">{name}</span> <span class="ago">{ago(moment)}</span>
    </time>
  );
}

// Who copies a time gets what programs read.
document.addEventListener('copy', (event) => {
  const selection = document.getSelection();
  const within = (node: Node | null | undefined) => (node instanceof Element ? node : node?.parentElement)?.closest('time');
  const [begin, end] = [within(selection?.anchorNode), within(selection?.focusNode)];
  if (begin && begin === end && begin.dataset.iso) {
    event.clipboardData?.setData('text/plain', begin.dataset.iso);
    event.preventDefault();
  }
});

/** The value of a `datetime-local` field, in the chosen zone, as RFC 3339; empty if it is none. */
export function instantOf(field: string): string {
  if (!field) return '';
  const wanted = Date.parse(`${field.length === 16 ? `${field}:00` : field}Z`);
  if (Number.isNaN(wanted)) return '';
  // Twice, since the offset may be another one on the other side of a change of the clocks.
  let guess = wanted;
  for (let turn = 0; turn < 2; turn += 1) guess = wanted - offsetMinutes(guess) * 60_000;
  return new Date(guess).toISOString().replace('.000Z', 'Z');
}

/** The other way round. */
export function fieldOf(instant: string): string {
  const at = Date.parse(instant);
  return Number.isNaN(at) ? '' : absolute(at).replace(' ', 'T').replace(/:00$/, '');
}

function offsetMinutes(at: number): number {
  const name = partsOf(formats.value.offset, at).timeZoneName ?? 'GMT';
  const [, sign, hours, minutes] = /GMT([+-])(\d{2}):?(\d{2})?/.exec(name) ?? [];
  return hours === undefined ? 0 : (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes ?? 0));
}
