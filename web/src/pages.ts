// The pages: one line each, one file each, loaded when visited. `at` has what stands below /ui/; a part in braces is anything.
import type { ComponentType } from 'preact';

export interface PageProps {
  /** What stands in the braces, by name. */
  named: Record<string, string>;
}

export interface Page {
  /** In the navigation, if it is one of it. */
  title: string;
  at: string[];
  hidden?: boolean;
  load: () => Promise<{ default: ComponentType<PageProps> }>;
}

export const pages: Page[] = [
  { title: 'Orders', at: ['orders', 'orders/{id}'], load: () => import('./pages/orders') },
  { title: 'Operations', at: ['operations', 'operations/{tab}', 'operations/{tab}/{id}'], load: () => import('./pages/operations') },
  { title: 'Query', at: ['query'], load: () => import('./pages/query') },
  { title: 'Live rows', at: ['streams/{id}/live', 'topics/{name}/live'], hidden: true, load: () => import('./pages/preview') },
  { title: 'Streams', at: ['streams', 'streams/{id}'], load: () => import('./pages/streams') },
];

/** The page at an address, and what its braces stand for there. */
export function pageAt(parts: string[]): { page: Page; named: Record<string, string> } | null {
  for (const page of pages) {
    for (const pattern of page.at) {
      const wanted = pattern.split('/');
      const named: Record<string, string> = {};
      const fits = wanted.length === parts.length && wanted.every((part, index) => {
        const name = /^\{(.*)\}$/.exec(part)?.[1];
        if (name) named[name] = parts[index]!;
        return name !== undefined || part === parts[index];
      });
      if (fits) return { page, named };
    }
  }
  return null;
}
