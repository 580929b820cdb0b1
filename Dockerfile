# The service of squad-lit serve with ONNX files, without torch:
#   docker build -t squad-lit .
#   docker run -p 127.0.0.1:8000:8000 -v "$PWD/part.onnx:/model/part.onnx:ro" squad-lit
ARG PYTHON=python:3.13-slim
FROM ${PYTHON} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY conf conf
RUN pip install --no-cache-dir --prefix=/install '.[onnx,serve]'

FROM ${PYTHON}
COPY --from=build /install /usr/local
USER nobody
EXPOSE 8000
HEALTHCHECK --start-period=10s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
# Inside of the container each address; docker run -p says who reaches it from outside.
ENTRYPOINT ["squad-lit", "serve", "--host", "0.0.0.0"]
CMD ["--checkpoint", "/model/part.onnx"]
