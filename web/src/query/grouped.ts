// By which columns of its result a text groups. As far as a look at the text can tell: it is judged by the engine, not here.

/** Their names; nothing where one of them has none in the result. */
export function groupedBy(text: string): string[] {
  const parts = split(/\bgroup\s+by\s+([\s\S]*?)(?:\bhaving\b|\bemit\b|\blimit\b|\border\b|;|$)/i.exec(text)?.[1] ?? '');
  const named = new Map<string, string>();
  for (const item of split(/^\s*select\s+(?:distinct\s+)?([\s\S]*?)\bfrom\b/i.exec(text)?.[1] ?? '')) {
    const [, expression, name] = /^([\s\S]*?)\s+as\s+([`"]?\w+[`"]?)$/i.exec(item) ?? [];
    if (expression && name) named.set(plain(expression), bare(name));
  }
  const names = parts.map((part) => named.get(plain(part)) ?? (/^([`"]?\w+[`"]?\.)?[`"]?\w+[`"]?$/.test(part) ? bare(part) : ''));
  return names.includes('') ? [] : names;
}

const bare = (name: string) => name.replace(/^.*\./, '').replaceAll(/[`"]/g, '');
/** The same expression is written with other spaces and in other case. */
const plain = (expression: string) => expression.toLowerCase().replaceAll(/\s+/g, '');

/** At commas that stand in no brackets and no quotes. */
function split(list: string): string[] {
  const parts = [''];
  let [depth, quote] = [0, ''];
  for (const letter of list) {
    if (quote) quote = letter === quote ? '' : quote;
    else if (/['"`]/.test(letter)) quote = letter;
    else if (letter === '(') depth += 1;
    else if (letter === ')') depth -= 1;
    if (letter === ',' && depth === 0 && !quote) parts.push('');
    else parts[parts.length - 1] += letter;
  }
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}
