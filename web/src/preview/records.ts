// Records of a topic as rows of a table: their columns, their cells, and what can be copied of one.
import { parse } from '../json';
import type { Column, Row } from '../rows';
import { absolute, zoneName } from '../time';

export interface Record {
  partition: number;
  offset: number;
  timestamp?: string;
  key?: string;
  keyFormat?: string;
  headers?: { name: string; text?: string; base64?: string; bytes?: number }[];
  moreHeaders?: number;
  schemaId?: number;
  format: string;
  value: unknown;
  error?: string;
}

/** A time is a number, which sorts as one; it is written when it is shown, in the zone that is chosen then. */
export const COLUMNS: Column[] = [{ name: 'Time', type: '', written: (at) => `${absolute(Number(at))} ${zoneName(Number(at))}` }, { name: 'Partition', type: 'int' }, { name: 'Offset', type: 'bigint' }, { name: 'Key', type: '', most: 260 }, { name: 'Schema', type: 'int' }, { name: 'Headers', type: '', most: 220 }, { name: 'Value', type: '' }];

/** Headers in one line; the record has them whole. */
function headersOf(headers: Record['headers'], more = 0): string | undefined {
  if (!headers) return undefined;
  const all = headers.map(({ name, text, base64, bytes }) => `${name}: ${text === '' ? '""' : text ?? (base64 === undefined ? 'null' : `base64 ${base64}`)}${bytes === undefined ? '' : ' …'}`);
  return [...all, ...(more > 0 ? [`${more.toLocaleString('en-GB')} more`] : [])].join(', ');
}

/** The cells of a record; what cannot be read says why. */
export function recordCells(text: string): unknown[] {
  const { timestamp, partition, offset, key, headers, moreHeaders, schemaId, format, value, error } = parse<Record>(text);
  const at = timestamp === undefined ? null : Date.parse(timestamp);
  const words = format === 'tombstone' ? 'deleted' : format === 'tooLarge' ? `too large to show: ${JSON.stringify(value)}` : typeof value === 'string' ? value : /"value":([\s\S]*)\}$/.exec(text)?.[1] ?? '';
  return [at, partition, offset, key, schemaId, headersOf(headers, moreHeaders), error ? `unreadable (${error}): ${words}` : words];
}

/** A key is copied as it is written in the topic: what is no text, as base64. */
export function copiesOf({ kind, text }: Row): [string, string][] {
  if (kind === 'mark') return [];
  const { partition, offset, key } = parse<Record>(text);
  return [...(key === undefined ? [] : [['Copy key', key] as [string, string]]), ['Copy position', `${partition}/${offset}`]];
}
