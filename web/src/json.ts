// JSON with every digit: a number that a double would round, or that would be written in another way, stays the text that was sent.

type Reviver = (key: string, value: unknown, context?: { source?: string }) => unknown;

const exact: Reviver = (_key, value, context) =>
  typeof value === 'number' && context?.source !== undefined && String(value) !== context.source ? context.source : value;

export function parse<T>(text: string): T {
  return JSON.parse(text, exact as (key: string, value: unknown) => unknown) as T;
}

declare global {
  interface JSON {
    rawJSON?: (text: string) => unknown;
  }
}

/** The same for what is written as JSON again: such a number is then written as it was sent. */
export function faithful<T>(text: string): T {
  const raw: Reviver = (_key, value, context) => {
    const source = context?.source;
    return typeof value === 'number' && source !== undefined && String(value) !== source ? (JSON.rawJSON?.(source) ?? source) : value;
  };
  return JSON.parse(text, raw as (key: string, value: unknown) => unknown) as T;
}

const TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

// The same text with a line for each value; nothing of it is read as a number.
export function pretty(text: string): string {
  let depth = 0;
  let out = '';
  let before = '';
  const line = () => `\n${'  '.repeat(depth)}`;
  for (const [token] of text.matchAll(TOKENS)) {
    const opens = token === '{' || token === '[';
    const closes = token === '}' || token === ']';
    if (closes) depth -= 1;
    const begins = before === '{' || before === '[';
    if (closes ? !begins : begins || before === ',') out += line();
    out += token === ':' ? ': ' : token;
    if (opens) depth += 1;
    before = token;
  }
  return out;
}

/** The names of the first parts of a list or an object, as many as are wanted, and how many it has; none of anything else. */
export function partsOf(value: unknown, most: number): { names: string[]; count: number } {
  const names = value === null || typeof value !== 'object' ? [] : Object.keys(value);
  return { names: names.slice(0, most), count: names.length };
}
