// A JSON value as a tree: as many nodes as a person can take in at first, the rest when asked for.
import { useState } from 'preact/hooks';
import { parse, pretty } from './json';
import { Copy } from './widgets';

const AT_FIRST = 200;

/** The value of JSON text: as a tree or as text. */
export function Record({ text, label }: { text: string; label: string }) {
  const [raw, setRaw] = useState(false);
  let value: unknown;
  let readable = true;
  try {
    value = parse(text);
  } catch {
    readable = false;
  }
  return (
    <div class="record">
      <p class="tools">
        {readable && (
          <button type="button" class="quiet" aria-pressed={raw} onClick={() => setRaw(!raw)}>As text</button>
        )}
        <Copy text={text} label="Copy value" what={label} />
      </p>
      {raw || !readable ? <pre tabIndex={0} aria-label={label}>{readable ? pretty(text) : text}</pre> : <Node value={value} path="$" open={2} budget={{ left: AT_FIRST }} />}
    </div>
  );
}

function Node({ value, path, open, budget, name }: { value: unknown; path: string; open: number; budget: { left: number }; name?: string }) {
  budget.left -= 1;
  const [unfolded, setUnfolded] = useState(open > 0 && budget.left > 0);
  const key = name === undefined ? null : <span class="key">{name}: </span>;
  if (value === null || typeof value !== 'object') {
    return <div class="leaf" title={path}>{key}<Leaf value={value} /></div>;
  }
  const entries = Object.entries(value);
  const [begin, end] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  if (entries.length === 0) return <div class="leaf">{key}{begin}{end}</div>;
  return (
    <div class="node">
      <button type="button" class="fold" aria-expanded={unfolded} title={path} onClick={() => setUnfolded(!unfolded)}>
        {key}{begin}{!unfolded && <span class="muted"> {entries.length} … {end}</span>}
      </button>
      {unfolded && (
        <div class="inside">
          {entries.map(([name, inner]) => (
            <Node key={name} name={name} value={inner} open={open - 1} budget={budget}
              path={Array.isArray(value) ? `${path}[${name}]` : `${path}.${name}`} />
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
  return <span class="literal">{String(value)}</span>;
}
