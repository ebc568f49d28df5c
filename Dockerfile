# The workbook on a CPU: docker build -t fer_lab . && docker run --rm -p 8888:8888 fer_lab
# Your own folder of photographs: add -v /path/to/pictures:/data and open them from there.
FROM python:3.12-slim
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends git make fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home reader
WORKDIR /home/reader/fer_lab
# torch for the CPU alone, without the gigabytes of CUDA's libraries; constraints.txt then finds it installed.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" \
    "torch==$(sed -n 's/^torch==//p' constraints.txt)" "torchvision==$(sed -n 's/^torchvision==//p' constraints.txt)"
COPY --chown=reader . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[book]' && chown reader .
USER reader
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks/00_start_here.ipynb"]
