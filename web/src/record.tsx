// A JSON value as a tree: as many nodes as a person can take in at first, the rest when asked for. Arrow keys go along it; what
// is picked of it can be copied, by its path or by its value.
import { useState } from 'preact/hooks';
import type { TargetedKeyboardEvent } from 'preact';
import { faithful, parse, pretty } from './json';
import { Copy } from './widgets';

const AT_FIRST = 200;

type Path = (string | number)[];

/** The value of JSON text: as a tree or as text. */
export function Record({ text, label }: { text: string; label: string }) {
  const [raw, setRaw] = useState(false);
  const [picked, setPicked] = useState<Path | null>(null);
  let value: unknown;
  let readable = true;
  try {
    value = parse(text);
  } catch {
    readable = false;
  }
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
  const entries = value === null || typeof value !== 'object' ? [] : Object.entries(value);
  if (entries.length === 0) {
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
        {key}{begin}{!unfolded && <span class="muted"> {entries.length} … {end}</span>}
      </button>
      {unfolded && (
        <div class="inside">
          {entries.map(([name, inner]) => (
            <Node key={name} value={inner} path={[...path, isList ? Number(name) : name]} open={open - 1} budget={budget} picked={picked} pick={pick} />
          ))}
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
