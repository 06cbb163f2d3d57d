// Tasks that have begun and not ended, as a forest by what lies within what: nothing looks at all of them to end one.

export interface Begun {
  readonly reference: string;
  /** Index of every loop around it, the outermost first. */
  readonly iteration: readonly number[];
}

const NOTHING: never[] = [];

interface Node<T> {
  key: string;
  value: T;
  around: Node<T> | null;
  /** Null until there is something. */
  inside: Set<Node<T>> | null;
}

/** Of a task within so many loops. Most are within none or one, which is quicker said. */
function keyOf(reference: string, iteration: readonly number[], loops = iteration.length): string {
  if (loops === 0) return reference;
  if (loops === 1) return `${reference} ${iteration[0] ?? ""}`;
  return `${reference} ${(loops < iteration.length ? iteration.slice(0, loops) : iteration).join(",")}`;
}

export class OpenTasks<T extends Begun> {
  private readonly nodes = new Map<string, Node<T>>();
  private readonly byReference = new Map<string, Set<Node<T>>>();
  /** How many loops are around the tasks of a reference. */
  private readonly loops = new Map<string, number>();
  /** References around one, the innermost first, of how many that were known. */
  private readonly outers = new Map<string, { known: number; references: string[] }>();

  get size(): number {
    return this.nodes.size;
  }

  /** In the order in which they began. */
  *values(): Iterable<T> {
    for (const node of this.nodes.values()) yield node.value;
  }

  get(reference: string, iteration: readonly number[]): T | undefined {
    return this.nodes.get(keyOf(reference, iteration))?.value;
  }

  /** The earliest of a reference. */
  first(reference: string): T | undefined {
    const [node] = this.byReference.get(reference) ?? [];
    return node?.value;
  }

  /** One that has begun is there; gives what it takes the place of, which the events have not ended. */
  begin(value: T): T[] {
    const { reference, iteration } = value;
    const key = keyOf(reference, iteration);
    const replaced = this.nodes.has(key) ? this.end(reference, iteration) : NOTHING;
    if (!this.loops.has(reference)) this.loops.set(reference, iteration.length);
    const around = this.holderOf(reference, iteration);
    const node: Node<T> = { key, value, around, inside: null };
    if (around) (around.inside ??= new Set()).add(node);
    this.nodes.set(key, node);
    const same = this.byReference.get(reference);
    if (same) same.add(node);
    else this.byReference.set(reference, new Set([node]));
    return replaced;
  }

  /** It is there no more, nor is what lies in it; gives all of them, itself first. */
  end(reference: string, iteration: readonly number[]): T[] {
    const node = this.nodes.get(keyOf(reference, iteration));
    if (!node) return [];
    node.around?.inside?.delete(node);
    return this.taken(node);
  }

  /** What lies in it is there no more; gives that. */
  endInside(reference: string, iteration: readonly number[]): T[] {
    const node = this.nodes.get(keyOf(reference, iteration));
    if (!node?.inside?.size) return [];
    const found = [...node.inside].flatMap((each) => this.taken(each));
    node.inside.clear();
    return found;
  }

  /** Those in which nothing else is under way, the earliest first. */
  leaves(): T[] {
    const found: T[] = [];
    for (const node of this.nodes.values()) if (!node.inside?.size) found.push(node.value);
    return found;
  }

  clear(): void {
    this.nodes.clear();
    this.byReference.clear();
  }

  private taken(top: Node<T>): T[] {
    const found: T[] = [];
    const pending = [top];
    for (let node = pending.pop(); node; node = pending.pop()) {
      this.nodes.delete(node.key);
      this.byReference.get(node.value.reference)?.delete(node);
      if (node.inside) pending.push(...node.inside);
      found.push(node.value);
    }
    return found;
  }

  /** The innermost around a place. */
  private holderOf(reference: string, iteration: readonly number[]): Node<T> | null {
    for (const outer of this.outersOf(reference)) {
      const found = this.nodes.get(keyOf(outer, iteration, this.loops.get(outer)));
      if (found) return found;
    }
    return null;
  }

  private outersOf(reference: string): string[] {
    const kept = this.outers.get(reference);
    if (kept?.known === this.loops.size) return kept.references;
    const references: string[] = [];
    for (let end = reference.lastIndexOf("/"); end > 0; end = reference.lastIndexOf("/", end - 1)) {
      const outer = reference.slice(0, end);
      if (this.loops.has(outer)) references.push(outer);
    }
    this.outers.set(reference, { known: this.loops.size, references });
    return references;
  }
}
