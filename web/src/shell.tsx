// What stands around every page: navigation, connection, zone, theme, who has signed in; and what happens when a page does not load.
import { useComputed, useSignalEffect } from '@preact/signals';
import { Component, type ComponentChildren, type ComponentType } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { root } from './api';
import { connection } from './live';
import { pageAt, pages, type Page, type PageProps } from './pages';
import { go, place, to } from './router';
import { closed, session } from './session';
import { Ended, SignIn, Who, WhoDialogs } from './signin';
import { theme } from './theme';
import { localZone, now, zone, zoneName } from './time';
import { Dialog, useLater } from './widgets';

export function Shell() {
  const [keys, setKeys] = useState(false);
  useKeys(() => setKeys(true));
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>Skip to the page</a>
      <header class="top">
        <a class="brand" href={to(['orders'])}>StreamView</a>
        <Navigation />
        <div class="corner">
          <Connected />
          <Zone />
          <Theme />
          <button type="button" class="quiet" onClick={() => setKeys(true)} aria-label="Keys">?</button>
          <Who />
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Ended />
        {closed.value ? <SignIn /> : <Current />}
      </main>
      <footer class="bottom">
        <a href={new URL('docs/', root).href}>API</a>
        <a href={new URL('problems', root).href}>Problems</a>
        <a href={new URL('ui/THIRD-PARTY.txt', root).href}>Licences</a>
      </footer>
      <WhoDialogs />
      {keys && <Keys close={() => setKeys(false)} />}
    </>
  );
}

function skip(event: Event) {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

function Navigation() {
  const here = pageAt(place.value.parts)?.page;
  return (
    <nav class="pages" aria-label="Pages">
      {pages.filter((page) => !page.hidden).map((page) => (
        <a key={page.title} href={to([page.at[0]!])} aria-current={page === here ? 'page' : here?.hidden && here.at[0]!.startsWith(`${page.at[0]}/`) ? 'true' : undefined}>{page.title}</a>
      ))}
    </nav>
  );
}

function Connected() {
  const { word, state, now } = connection.value;
  const last = useRef('');
  // Read out when the state changes, not at each second of a countdown.
  const told = state === last.current ? undefined : word;
  useEffect(() => void (last.current = state));
  return (
    <div class="connection">
      {state !== 'none' && <span class={`state ${state}`}>{word}</span>}
      {now && <button type="button" class="quiet" onClick={now}>Now</button>}
      <span role="status" class="unseen">{told}</span>
    </div>
  );
}

const ZONES = ['local', 'UTC', 'Europe/London', 'Europe/Berlin', 'America/New_York', 'America/Los_Angeles', 'Asia/Kolkata', 'Asia/Tokyo', 'Australia/Sydney'];

function Zone() {
  const known = ZONES.includes(zone.value) ? ZONES : [...ZONES, zone.value];
  return (
    <label class="choice">
      <span class="unseen">Time zone</span>
      <select value={zone.value} onChange={(event) => (zone.value = event.currentTarget.value)}>
        {known.map((name) => (
          <option key={name} value={name}>{name === 'local' ? `Local (${localZone})` : name}</option>
        ))}
      </select>
      <span class="unseen">{zoneName(now.value)}</span>
    </label>
  );
}

function Theme() {
  return (
    <label class="choice">
      <span class="unseen">Colours</span>
      <select value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value)}>
        <option value="system">System</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}

/** The page of the address. */
function Current() {
  const parts = useComputed(() => place.value.parts.join('\n'));
  useSignalEffect(() => {
    const { parts, hash } = place.value;
    if (parts.length === 0) go(to(['orders'], {}, { signIn: hash.get('signIn') }), { replace: true });
  });
  const found = pageAt(parts.value.split('\n').filter((part) => part !== ''));
  if (!found) {
    return (
      <section>
        <h1>There is no such page</h1>
        <p>Nothing of the console lies at this address. <a href={to(['orders'])}>To the orders</a></p>
      </section>
    );
  }
  return <Loaded key={found.page.title} {...found} address={parts.value} />;
}

const loaded = new Map<Page, ComponentType<PageProps>>();
/** The page that was shown last; none before the first. */
let last: Page | null = null;

function Loaded({ page, named, address }: { page: Page; named: Record<string, string>; address: string }) {
  const [, setTurn] = useState(0);
  const [failed, setFailed] = useState(false);
  const Page = loaded.get(page);
  const slow = useLater(!Page && !failed, 300);
  useEffect(() => {
    if (Page) return;
    page.load().then(
      (module) => {
        loaded.set(page, module.default);
        setTurn((turn) => turn + 1);
      },
      () => setFailed(true),
    );
  }, [page]);
  // At once: a key that is pressed as soon as the page is seen is meant for it.
  useLayoutEffect(() => {
    document.title = `${page.title} · StreamView`;
    // Who has come by a link begins at the top of the new page; who has loaded it, where the browser says.
    if (last) {
      window.scrollTo(0, 0);
      // A page that keeps its head names where its new part begins.
      const begin = (last === page && document.querySelector<HTMLElement>('[data-begin]')) || document.getElementById('main');
      begin?.focus({ preventScroll: true });
    }
    last = page;
  }, [address]);
  if (failed) {
    return (
      <div class="failure" role="alert">
        <p><strong>This part of the console could not be loaded. StreamView was updated or does not answer.</strong></p>
        <p><button type="button" onClick={() => window.location.reload()}>Reload</button></p>
      </div>
    );
  }
  if (!Page) return <p class="waiting" role="status">{slow ? 'Loading the page …' : ''}</p>;
  return <Caught address={address}><Page named={named} /></Caught>;
}

/** A page that fails says so, and the rest stays. */
class Caught extends Component<{ children: ComponentChildren; address: string }, { error?: unknown }> {
  override state: { error?: unknown } = {};

  override componentDidUpdate(before: { address: string }) {
    if (before.address !== this.props.address && this.state.error !== undefined) this.setState({ error: undefined });
  }

  override componentDidCatch(error: unknown) {
    console.error(error);
    this.setState({ error });
  }

  override render() {
    if (this.state.error === undefined) return this.props.children;
    return (
      <div class="failure" role="alert">
        <p><strong>This page has a defect: {String(this.state.error)}</strong></p>
        <p><button type="button" onClick={() => this.setState({ error: undefined })}>Try again</button></p>
      </div>
    );
  }
}

/** Where a key leads. */
const PLACES: { [key: string]: string } = { '/': '[data-filter]', l: 'main tbody a, main [role=grid]', a: "[data-actions] [tabindex='0']" };

/** `?` lists the keys, `/` goes to the filter, `l` to the list, `a` to what can be done. */
function useKeys(help: () => void) {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.composedPath()[0];
      const types = target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
      if (types || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
      if (event.key === '?') help();
      else if (PLACES[event.key]) {
        const wanted = document.querySelector<HTMLElement>(PLACES[event.key]!);
        if (!wanted) return;
        wanted.focus();
      } else return;
      event.preventDefault();
    };
    document.addEventListener('keydown', pressed);
    return () => document.removeEventListener('keydown', pressed);
  }, []);
}

function Keys({ close }: { close: () => void }) {
  const keys: [string, string][] = [
    ['/', 'to the filter of the list'],
    ['l', 'to the first row of the list'],
    ['a', 'to what can be done: Run and Stop, Pause, Deploy, Edit'],
    ['← →', 'from button to button there; among rows that come → leads to the head of the table, for its order and widths'],
    ['↑ ↓', 'from row to row, once a row has the focus'],
    ['Enter', 'opens the row'],
    ['Space', 'pauses rows that come, and resumes them, once they have the focus'],
    ['Ctrl or ⌘ + Enter', 'runs a query'],
    ['Tab', 'goes on, out of the editor too'],
    ['Esc', 'closes lists and dialogs'],
    ['?', 'these keys'],
  ];
  return (
    <Dialog title="Keys" close={close}>
      <dl class="keys">
        {keys.map(([key, what]) => (
          <div key={key}><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>
        ))}
      </dl>
      {session.value?.principal && <p class="small">Signed in as {session.value.principal.name}.</p>}
    </Dialog>
  );
}
