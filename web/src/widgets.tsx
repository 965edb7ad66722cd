// Small parts that every page uses: the states of a list, errors, numbers, copying, dialogs.
import type { ButtonHTMLAttributes, ComponentChildren, TargetedKeyboardEvent } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { curl, root, type Asked, type Call, type Problem } from './api';
import { narrow, place } from './router';
import { ended, forbidden, signsIn, type Right } from './session';
import { ago, clock, fieldOf, instantOf, zone, zoneName } from './time';

/** Copies, and says that it did. */
export function Copy({ text, label = 'Copy', what }: { text: string | (() => string); label?: string; what?: string }) {
  const [done, setDone] = useState('');
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(typeof text === 'string' ? text : text());
      setDone('Copied');
    } catch {
      setDone('Not allowed by the browser');
    }
    window.setTimeout(() => setDone(''), 2000);
  };
  return (
    <button type="button" class="quiet" onClick={copy} aria-label={done || (what ? `${label}: ${what}` : label)}>
      <span role="status">{done || label}</span>
    </button>
  );
}

/** The same call for a shell. */
export function CopyCurl({ path, call, what }: { path: string; call?: Call | (() => Call); what?: string }) {
  return <Copy label="Copy as curl" text={() => curl(path, typeof call === 'function' ? call() : call)} what={what} />;
}

/** What a spreadsheet would run or take apart (OWASP, CSV injection), but for numbers. */
const FORMULA = /^[=+\-@\t\r\n]/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** What is shown, as a file: JSON lines, or CSV with the names of the fields. */
export function Download({ name, rows }: { name: string; rows: () => object[] }) {
  const give = (ending: string, type: string, text: string) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `${name}.${ending}`;
    link.click();
    window.setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  const cell = (value: unknown) => {
    let text = value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
    if (FORMULA.test(text) && !NUMBER.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = () => {
    const all = rows();
    const names = [...new Set(all.flatMap((row) => Object.keys(row)))];
    return [names, ...all.map((row) => names.map((name) => (row as { [name: string]: unknown })[name]))].map((line) => `${line.map(cell).join(',')}\r\n`).join('');
  };
  return (
    <>
      <button type="button" class="quiet" onClick={() => give('jsonl', 'application/x-ndjson', rows().map((row) => `${JSON.stringify(row)}\n`).join(''))}>JSON lines</button>
      <button type="button" class="quiet" onClick={() => give('csv', 'text/csv', csv())}>CSV</button>
    </>
  );
}

/** What went wrong, at its place. */
export function Failure({ problem, again, children }: { problem: Problem; again?: () => void; children?: ComponentChildren }) {
  // That nobody is signed in any more is told once, above the page.
  if (ended.value && problem.code === 'not_logged_in') return null;
  return (
    <div class="failure" role="alert">
      <p>
        <strong>{problem.detail}</strong>
      </p>
      {children}
      <p class="small">
        {problem.status > 0 ? (
          <>
            <a href={new URL(`problems/${problem.code}`, root).href} target="_blank" rel="noreferrer">
              <code>{problem.code}</code>
            </a>
            {problem.traceId && (
              <>
                {' '}· trace <code class="trace">{problem.traceId}</code> <Copy text={problem.traceId} what="trace id" />
              </>
            )}
          </>
        ) : (
          <>since {clock(problem.at)} {zoneName(problem.at)}</>
        )}
        {again && (
          <>
            {' '}<button type="button" onClick={again}>Try again</button>
          </>
        )}
      </p>
    </div>
  );
}

/** The states of what was asked for: not there yet, failed, or there, and then perhaps old, or what was asked for before and is pale. */
export function Shown<T>({ of, children, what }: { of: Asked<T>; what: string; children: (data: T) => ComponentChildren }) {
  const slow = useLater(of.loading && (of.data === undefined || of.isOther), 300);
  if (of.data === undefined) {
    if (of.error) return <Failure problem={of.error} again={of.again} />;
    return <p class="waiting" role="status">{slow ? `Loading ${what} …` : ''}</p>;
  }
  return (
    <>
      {of.error && (
        <Failure problem={of.error} again={of.again}>
          <p class="small">What is shown is as of {clock(of.at)} {zoneName(of.at)}, {ago(of.at)}.</p>
        </Failure>
      )}
      {slow && of.isOther && <p class="waiting" role="status">Loading {what} …</p>}
      <div class={slow && of.isOther ? 'other' : 'told'} aria-busy={of.isOther || undefined}>{children(of.data)}</div>
    </>
  );
}

/** True once `condition` has held for so long: what is quick needs no word. */
export function useLater(condition: boolean, ms: number): boolean {
  const [late, setLate] = useState(false);
  useEffect(() => {
    if (!condition) return setLate(false);
    const timer = window.setTimeout(() => setLate(true), ms);
    return () => window.clearTimeout(timer);
  }, [condition, ms]);
  return late && condition;
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** How something stands: by colour and by word. */
export function State({ kind, children }: { kind: 'good' | 'on' | 'wait' | 'bad' | 'idle'; children: ComponentChildren }) {
  return <span class={`state ${kind}`}>{children}</span>;
}

const digits = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 1 });

/** A number of things, in groups of three digits. */
export function count(value: number | string | null | undefined): string {
  if (value === null || value === undefined) return '–';
  return typeof value === 'string' ? value : digits.format(value);
}

/** So many a second: what is slow has a digit behind the point. */
export function rate(value: number): string {
  return count(value < 10 ? value : Math.round(value));
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [size, unit] = [value, 0];
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** What is not there, said in a way that no value looks like. */
export function Value({ of }: { of: string | number | null | undefined }) {
  if (of === null || of === undefined) return <span class="nothing">none</span>;
  if (of === '') return <span class="nothing">empty</span>;
  return <>{of}</>;
}

/** A button that the role may forbid: it is there all the same, and says why; `apart`: the page says it for several at once. */
export function Act({ right, why, apart = false, children, ...rest }: { right: Right; why?: string; apart?: boolean; children: ComponentChildren } & Omit<ButtonHTMLAttributes, 'onClick'> & { onClick?: () => void }) {
  const reason = forbidden(right) || why || '';
  const id = useId();
  return (
    <>
      <button type="button" {...rest} aria-disabled={reason ? true : undefined} aria-describedby={reason ? id : undefined}
        onClick={(event) => (reason ? event.preventDefault() : rest.onClick?.())}>
        {children}
      </button>
      {reason && <span class={apart ? 'unseen' : 'reason'} id={id}>{reason}</span>}
    </>
  );
}

/** A dialog over the page: Escape closes it, and the focus comes back to where it was. */
export function Dialog({ title, close, children, wide = false }: { title: string; close: () => void; children: ComponentChildren; wide?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    const [before, own] = [document.activeElement, dialog.current];
    own?.showModal();
    // To what is to be written, if anything is, and not to Close.
    own?.querySelector<HTMLElement>('form :is(input, textarea, select)')?.focus();
    // Escape closes it a moment before this is told: who has gone elsewhere since is left there.
    return () => {
      const now = document.activeElement;
      const isElsewhere = now && now !== document.body && !own?.contains(now);
      if (!isElsewhere && before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog ref={dialog} class={wide ? 'wide' : ''} aria-labelledby={id} onClose={close}>
      <header>
        <h2 id={id}>{title}</h2>
        <button type="button" class="quiet" onClick={close}>Close</button>
      </header>
      {ended.value && !signsIn.value && (
        <p class="note" role="alert"><strong>The session has ended.</strong> What you have written here stays. <button type="button" class="primary" onClick={() => (signsIn.value = true)}>Sign in again</button></p>
      )}
      {children}
    </dialog>
  );
}

/** A filter that is written: it holds from Enter or the next field on, and what is being written stays when the list is drawn anew. */
export function Typed({ label, value, set, ...rest }: { label: string; value: string; set: (text: string) => void; size?: number; placeholder?: string }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  return <label><span>{label}</span><input size={16} {...rest} value={text} onInput={(event) => setText(event.currentTarget.value)} onChange={(event) => set(event.currentTarget.value.trim())} /></label>;
}

/** From when and until when, in the zone that times are shown in; as instants in the address. Each field is six stops of Tab, so they come when asked for. */
export function Between({ label, from, to }: { label: string; from: string; to: string }) {
  void zone.value;
  const [open, setOpen] = useState(from !== '' || to !== '');
  if (!open) return <button type="button" aria-expanded={false} onClick={() => setOpen(true)}>{label} when …</button>;
  return (
    <>
      {([['from', from, `${label} from`], ['to', to, 'to before']] as const).map(([name, value, title]) => (
        <label key={name}>
          <span>{title}</span>
          <input type="datetime-local" value={fieldOf(value)} onChange={(event) => narrow({ [name]: instantOf(event.currentTarget.value) })} />
        </label>
      ))}
    </>
  );
}

/** Buttons that are one stop of Tab: arrow keys go among them, Home and End to the ends (WAI-ARIA's toolbar). `main`: the key `a` leads here. */
export function Toolbar({ label, main = false, children, class: name = 'tools' }: { label: string; main?: boolean; children: ComponentChildren; class?: string }) {
  const box = useRef<HTMLDivElement>(null);
  // At once: before the browser has drawn them, somebody may press Tab.
  useLayoutEffect(() => {
    const element = box.current!;
    // What comes later takes its place; who has the focus keeps it.
    const settle = () => {
      const items = itemsOf(element);
      const now = items.find((item) => item === document.activeElement) ?? items.find((item) => item.getAttribute('tabindex') === '0') ?? items[0];
      for (const item of items) item.setAttribute('tabindex', item === now ? '0' : '-1');
    };
    settle();
    const watch = new MutationObserver(settle);
    watch.observe(element, { childList: true, subtree: true });
    element.addEventListener('focusin', settle);
    return () => {
      watch.disconnect();
      element.removeEventListener('focusin', settle);
    };
  }, []);
  const move = (event: TargetedKeyboardEvent<HTMLElement>) => {
    const items = itemsOf(event.currentTarget);
    const at = items.indexOf(event.target as HTMLElement);
    const to = { ArrowRight: (at + 1) % items.length, ArrowLeft: (at + items.length - 1) % items.length, Home: 0, End: items.length - 1 }[event.key as 'Home'];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    items[to]!.focus();
  };
  return <div ref={box} role="toolbar" aria-label={label} class={name} data-actions={main ? '' : undefined} onKeyDown={move}>{children}</div>;
}

/** Lists and fields keep a stop of their own: arrow keys are theirs. */
function itemsOf(toolbar: HTMLElement): HTMLElement[] {
  return [...toolbar.querySelectorAll<HTMLElement>('button, a[href], summary')].filter((item) => !item.closest('dialog'));
}

/** Arrow keys go from row to row, by the link that each begins with. */
export function alongRows(event: TargetedKeyboardEvent<HTMLElement>): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key as 'ArrowDown'];
  if (step === undefined || !(event.target instanceof HTMLAnchorElement)) return;
  const all = [...event.currentTarget.querySelectorAll<HTMLAnchorElement>('tbody tr > :first-child a')];
  const next = all[all.indexOf(event.target) + step];
  if (next) {
    next.focus();
    event.preventDefault();
  }
}

/** A table that scrolls by itself where it is wider than the page. */
export function Table({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div class="scroll" role="region" aria-label={label} tabIndex={0} onKeyDown={alongRows}>
      <table>{children}</table>
    </div>
  );
}

/** Newer, older: pages by cursor. */
export function Pager({ asked, go }: { asked: Asked<unknown>; go: (cursor: string | null) => void }) {
  const of = (rel: string) => {
    const link = new RegExp(`<([^>]*)>[^,]*rel="${rel}"`).exec(asked.answer?.headers.get('link') ?? '')?.[1];
    return link ? new URL(link, root).searchParams.get('cursor') : undefined;
  };
  const [previous, next] = [of('prev'), of('next')];
  if (next === undefined && !place.value.query.has('cursor')) return null;
  return (
    <nav class="pager" aria-label="Pages of the list">
      <button type="button" onClick={() => go(null)}>First page</button>
      {previous && <button type="button" onClick={() => go(previous)}>Previous</button>}
      <button type="button" aria-disabled={!next} onClick={() => next && go(next)}>Next</button>
    </nav>
  );
}
