// What operators are shown, as the API tells it.

export interface Lags {
  view: string;
  state: string;
  totalLag: number | null;
  observedAt: string | null;
  partitions: Partition[];
}

export interface Partition {
  topic: string;
  partition: number;
  nextOffset: number;
  highWatermark: number;
  lag: number;
  lagSeconds: number;
  verdict: string;
  reason: string | null;
}

export interface Conservation {
  consumed: number;
  applied: number;
  duplicate: number;
  late: number;
  conflict: number;
  parked: number;
  deadLettered: number;
  balanced: boolean;
}

export interface Consumer {
  view: string;
  state: string;
  reason: string | null;
  since: string;
  halt: { code: string; detail: string; nextStep: string } | null;
  group: string;
  topic: string;
  build: number;
  partitions: { partition: number; lane: number; paused: string | null; pausedCode: string | null; lastCommitAt: string | null }[];
  progress: { partition: number; owner: string | null; conservation: Conservation }[] | null;
  conservation: Conservation | null;
}

export interface Payload {
  bytes: number;
  truncated: boolean;
  json?: unknown;
  text?: string;
  base64?: string;
}

export interface NextStep {
  action: string;
  effect: string;
  method: string;
  href: string;
  body?: { [name: string]: unknown };
}

export interface Letter {
  id: number;
  status: string;
  reason: string;
  error: string;
  key: string | null;
  sequence: number | null;
  topic: string;
  partition: number;
  offset: number;
  recordTime: string | null;
  createdAt: string;
  payloadBytes: number | null;
  decisionId: number | null;
  refusedBecause?: string;
}

export interface LetterDetail extends Letter {
  headers: { name: string; text?: string; base64?: string }[];
  recordKey: Payload | null;
  payload: Payload | null;
  publishedAt: string | null;
  decision: Decision | null;
  next: NextStep[];
}

export interface Decision {
  id: number;
  action: string;
  status: string;
  key: string | null;
  sequence: number | null;
  sequenceTo: number | null;
  reason: string;
  actor: string;
  onBehalfOf: string | null;
  decidedAt: string;
  takenAt: string | null;
  refused: string | null;
}

export interface Operation {
  id: number;
  kind: string;
  view: string;
  state: string;
  phase: string;
  fromBuild: number | null;
  toBuild: number | null;
  waitingFor: string | null;
  progress: { records: number; total: number | null; percent: number | null; recordsPerSecond: number | null; etaSeconds: number | null };
  phases: { phase: string; at: string }[];
  comparison: { [name: string]: unknown } | null;
  startedAt: string;
  updatedAt: string;
  finishedAt: string | null;
  reason: string;
  actor: string;
  onBehalfOf: string | null;
  askedBy: string | null;
  error: { code?: string; detail?: string; nextStep?: string } | null;
}

export interface ViewOfBuilds {
  view: string;
  state: string;
  standing: { code: string; detail: string } | null;
  paused: { reason: string; actor: string; since: string } | null;
  activeBuild: number | null;
  builds: { build: number; state: string; active: boolean; projectionVersion: number; records: number; rows: number; bytes: number; createdAt: string; keptUntil: string | null }[];
  leftovers: { build: number; detail: string; bytes: number }[];
}

export function words(name: string): string {
  return name.replaceAll('_', ' ');
}

/** How long the build that readers leave is kept, as a part of a call: a field in which nothing stands says nothing, and not 0. */
export function keptFor(hours: string): { keepHours?: number } {
  return hours.trim() === '' ? {} : { keepHours: Number(hours) };
}
