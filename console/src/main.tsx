import { render } from "preact";
import "./theme.css";
import { listExecutions, type ExecutionPage } from "./api";
import { executionPath, listenToAddress } from "./router";
import { useEffect, useState } from "preact/hooks";

function App() {
  const [page, setPage] = useState<ExecutionPage | null>(null);
  useEffect(() => {
    void listExecutions({ status: "", namespace: "", name: "", version: "" }).then(setPage);
  }, []);
  return (
    <ul>
      {page?.executions.map((each) => (
        <li key={each.id}>
          <a href={executionPath(each.id)}>{each.id}</a> {each.status}
        </li>
      ))}
    </ul>
  );
}

listenToAddress();
const root = document.getElementById("app");
if (root) render(<App />, root);
