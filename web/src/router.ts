// Where a person is. The path names the page and the thing, the query string what is shown of it; what people type (keys, texts,
// SQL) stands behind `#`, which no server sees.
import { signal } from '@preact/signals';

/** The path below which the console lies, whatever a proxy has put before it. */
export const base = new URL('.', import.meta.url).pathname;

export interface Place {
  /** Parts of the path below the base, decoded. */
  parts: string[];
  query: URLSearchParams;
  hash: URLSearchParams;
}

function read(): Place {
  const { pathname, search, hash } = window.location;
  const below = pathname.startsWith(base) ? pathname.slice(base.length) : '';
  const parts = below.split('/').filter((part) => part !== '').map(decode);
  return { parts, query: new URLSearchParams(search), hash: new URLSearchParams(hash.slice(1)) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const KEPT = 'streamview.hash';

/** Who goes to the identity provider comes back to the same page; what stands behind `#`, which no server sees, waits in this tab. */
export function keepHash(): void {
  const { pathname, search, hash } = window.location;
  try {
    if (hash) sessionStorage.setItem(KEPT, JSON.stringify([pathname + search, hash]));
  } catch {
    // a browser that keeps nothing
  }
}

function bringHash(): void {
  try {
    const [page, hash] = JSON.parse(sessionStorage.getItem(KEPT) ?? '[]') as string[];
    if (window.location.hash === '' && window.location.pathname + window.location.search === page) history.replaceState(null, '', `${page}${hash}`);
    sessionStorage.removeItem(KEPT);
  } catch {
    // a browser that keeps nothing
  }
}

bringHash();
export const place = signal<Place>(read());
/** The address that is shown. */
let shown = window.location.href;

/** What has to be asked before somebody leaves the page, by a link, by Back, or by a reload: gives false to stay. */
export const leaving: { ask: (() => boolean) | null } = { ask: null };

function leaves(address: string): boolean {
  return new URL(address, shown).pathname !== new URL(shown).pathname;
}

function arrive(): void {
  shown = window.location.href;
  place.value = read();
}

window.addEventListener('popstate', () => {
  // The browser is there already: who stays is led back.
  if (leaves(window.location.href) && leaving.ask && !leaving.ask()) history.pushState(null, '', shown);
  else arrive();
});
window.addEventListener('hashchange', arrive);
window.addEventListener('beforeunload', (event) => leaving.ask && event.preventDefault());

type Values = Record<string, string | string[] | null | undefined>;

function encoded(values: Values, into = new URLSearchParams()): string {
  for (const [name, value] of Object.entries(values)) {
    into.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one) into.append(name, one);
  }
  // Times and lists stay legible.
  return into.toString().replaceAll('%3A', ':').replaceAll('%2C', ',');
}

/** The address of a page of the console: `to(['orders', id])`. A dot in an id would look like the name of a file. */
export function to(parts: string[], query: Values = {}, hash: Values = {}): string {
  const path = parts.map((part) => encodeURIComponent(part).replaceAll('.', '%2E')).join('/');
  const [search, anchor] = [encoded(query), encoded(hash)];
  return `${base}${path}${search && `?${search}`}${anchor && `#${anchor}`}`;
}

export function go(address: string, { replace = false } = {}): void {
  if (leaves(address) && leaving.ask && !leaving.ask()) return;
  if (replace) history.replaceState(null, '', address);
  else history.pushState(null, '', address);
  arrive();
}

/** Changes parts of the query string (or, with `hash`, of what stands behind `#`) and stays on the page. */
export function change(values: Values, { hash = false, replace = true } = {}): void {
  const now = read();
  const search = hash ? now.query.toString() : encoded(values, now.query);
  const anchor = hash ? encoded(values, now.hash) : now.hash.toString();
  go(`${window.location.pathname}${search && `?${search}`}${anchor && `#${anchor}`}`, { replace });
}

/** Changes what a list is asked for, in the query string and behind `#`: it begins anew, at its first page and as of now. */
export function narrow(query: Values, hash: Values = {}): void {
  const now = read();
  const [search, anchor] = [encoded({ cursor: null, at: null, ...query }, now.query), encoded(hash, now.hash)];
  go(`${window.location.pathname}${search && `?${search}`}${anchor && `#${anchor}`}`, { replace: true });
}

// Links of the console do not load the page again.
document.addEventListener('click', (event) => {
  const link = event.target instanceof Element ? event.target.closest('a') : null;
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || event.defaultPrevented || link.target || link.hasAttribute('download')) return;
  const url = new URL(link.href);
  if (url.origin !== window.location.origin || !url.pathname.startsWith(base) || url.pathname.endsWith('.txt')) return;
  event.preventDefault();
  go(url.href);
});
