// A JSON value as a tree: as many nodes as a person can take in at first, also of a list that is long, the rest when asked for. Arrow keys go along it; what
// is picked of it can be copied, by its path or by its value.
import { useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { TargetedKeyboardEvent } from 'preact';
import { faithful, parse, partsOf, pretty } from './json';
import { Copy, count } from './widgets';

const AT_FIRST = 200;

type Path = (string | number)[];

/** The value of JSON text: as a tree or as text. */
export function Record({ text, label }: { text: string; label: string }) {
  const [raw, setRaw] = useState(false);
  const [picked, setPicked] = useState<Path | null>(null);
  const { value, readable } = useMemo(() => read(text), [text]);
  const isTree = readable && !raw;
  return (
    <div class="record">
      <p class="tools">
        {isTree && picked && (
          <span class="part">
            <code>{written(picked)}</code>
            <Copy text={written(picked)} label="Copy path" />
            <Copy text={() => part(text, picked)} label="Copy this" what={written(picked)} />
          </span>
        )}
        {readable && (
          <button type="button" class="quiet" aria-pressed={raw} onClick={() => setRaw(!raw)}>As text</button>
        )}
        <Copy text={text} label="Copy value" what={label} />
      </p>
      {isTree ? (
        <div class="tree" onKeyDown={along}><Node value={value} path={[]} open={2} budget={{ left: AT_FIRST }} picked={picked === null ? null : written(picked)} pick={setPicked} /></div>
      ) : <pre tabIndex={0} aria-label={label}>{readable ? pretty(text) : text}</pre>}
    </div>
  );
}

function read(text: string): { value?: unknown; readable: boolean } {
  try {
    return { value: parse(text), readable: true };
  } catch {
    return { readable: false };
  }
}

/** A path as JSONPath has it. */
function written(path: Path): string {
  return path.reduce<string>((before, name) => {
    if (typeof name === 'number') return `${before}[${name}]`;
    return /^[A-Za-z_]\w*$/.test(name) ? `${before}.${name}` : `${before}['${name.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}']`;
  }, '$');
}

/** The value at a path, with every digit; a text without its quotes. */
function part(text: string, path: Path): string {
  let value: unknown = faithful(text);
  for (const name of path) value = (value as { [name: string]: unknown })[name];
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** One stop for Tab; from there arrow keys. */
function along(event: TargetedKeyboardEvent<HTMLElement>): void {
  const all = [...event.currentTarget.querySelectorAll<HTMLButtonElement>('button')];
  const at = all.indexOf(event.target as HTMLButtonElement);
  const wanted = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key as 'End'];
  if (wanted === undefined || at < 0) return;
  event.preventDefault();
  all[Math.min(Math.max(wanted, 0), all.length - 1)]?.focus();
}

interface NodeProps {
  value: unknown;
  path: Path;
  open: number;
  budget: { left: number };
  picked: string | null;
  pick: (path: Path) => void;
}

function Node({ value, path, open, budget, picked, pick }: NodeProps) {
  budget.left -= 1;
  const [unfolded, setUnfolded] = useState(open > 0 && budget.left > 0);
  const name = path.at(-1);
  const place = written(path);
  const key = name === undefined ? null : <span class="key">{name}: </span>;
  const shown = { title: place, tabIndex: path.length === 0 ? 0 : -1, 'aria-current': picked === place ? ('true' as const) : undefined };
  const [most, setMost] = useState(AT_FIRST);
  const { names, count: all } = partsOf(value, most);
  // Who asks for more goes on at the first of them.
  const last = useRef<Element | null>(null);
  useLayoutEffect(() => {
    const next = last.current?.nextElementSibling;
    (next instanceof HTMLButtonElement ? next : next?.querySelector('button'))?.focus();
    last.current = null;
  }, [most]);
  if (all === 0) {
    return <button type="button" class="leaf" {...shown} onClick={() => pick(path)}>{key}<Leaf value={value} /></button>;
  }
  const isList = Array.isArray(value);
  const [begin, end] = isList ? ['[', ']'] : ['{', '}'];
  return (
    <div class="node">
      <button type="button" class="fold" aria-expanded={unfolded} {...shown} onClick={() => {
        setUnfolded(!unfolded);
        pick(path);
      }}>
        {key}{begin}{!unfolded && <span class="muted"> {count(all)} … {end}</span>}
      </button>
      {unfolded && (
        <div class="inside">
          {names.map((name) => (
            <Node key={name} value={(value as { [name: string]: unknown })[name]} path={[...path, isList ? Number(name) : name]} open={open - 1} budget={budget} picked={picked} pick={pick} />
          ))}
          {all > most && (
            <button type="button" class="leaf" tabIndex={-1} onClick={(event) => {
              last.current = event.currentTarget.previousElementSibling;
              setMost(most + AT_FIRST);
            }}>the next {Math.min(all - most, AT_FIRST)} of {count(all)}</button>
          )}
        </div>
      )}
      {unfolded && <div>{end}</div>}
    </div>
  );
}

function Leaf({ value }: { value: unknown }) {
  if (value === null) return <span class="nothing">null</span>;
  if (value === '') return <span class="nothing">""</span>;
  if (typeof value === 'string') return <span class="text">{value}</span>;
  if (typeof value === 'object') return <>{Array.isArray(value) ? '[]' : '{}'}</>;
  return <span class="literal">{String(value)}</span>;
}
